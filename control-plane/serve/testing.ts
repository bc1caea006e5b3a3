import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino, { type Logger } from 'pino';
import type { Resource } from '#api/resource.ts';
import { openAuthority } from '#certs/authority.ts';
import { type GrpcListener, type GrpcService, listenGrpc } from './grpc-listener.ts';
import { openNodeTokens } from './node-tokens.ts';
import { EMPTY_SNAPSHOT, type ServedSnapshot, serveResources } from './served-snapshot.ts';
import { createDiscoveryServer, type DiscoveryLimits, type DiscoveryServer } from './server.ts';

/** A real discovery server on loopback, with a real certificate and tokens; for tests. */
export interface TestServer extends AsyncDisposable {
  /** `https://HOST:PORT` */
  readonly address: string;
  readonly rootsPem: string;
  readonly discovery: DiscoveryServer;
  readonly listener: GrpcListener;
  /** The folder of tokens. */
  readonly tokens: string;
  /** Log lines as they were written. */
  readonly log: readonly Readonly<Record<string, unknown>>[];
  /** Serves these resources from now on. */
  readonly publish: (...resources: readonly Resource[]) => void;
}

/** The token of a node, as {@link openTestServer} writes them. */
export function tokenOf(node: string): string {
  return `token-of-${node}`.padEnd(43, '-');
}

/** Starts one that knows nodes n1 and n2; `services` take the place of the discovery service. */
export async function openTestServer(
  options: {
    /** Where it listens; its certificate is for `localhost` and 127.0.0.1 whatever this is. Default 127.0.0.1. */
    readonly host?: string;
    readonly port?: number;
    readonly limits?: DiscoveryLimits;
    readonly services?: readonly GrpcService[];
  } = {},
): Promise<TestServer> {
  const { host = '127.0.0.1' } = options;
  const directory = await mkdtemp(join(tmpdir(), 'tulle-serve-'));
  const tokens = join(directory, 'tokens');
  await mkdir(tokens);
  for (const node of ['n1', 'n2']) await writeFile(join(tokens, node), tokenOf(node));
  const authority = await openAuthority({ directory: join(directory, 'ca'), trustDomain: 'cluster.local' });
  const { keyPem, chainPem } = await authority.issueServer({
    dnsNames: ['localhost'],
    ips: ['127.0.0.1'],
    ttlMs: 3_600_000,
  });
  const log: Readonly<Record<string, unknown>>[] = [];
  const logger: Logger = pino({ level: 'debug' }, { write: (line) => void log.push(JSON.parse(line)) });
  const nodeTokens = openNodeTokens(tokens);
  const discovery = createDiscoveryServer({ tokens: nodeTokens, logger, limits: options.limits ?? {} });
  const listener = await listenGrpc({
    host,
    port: options.port ?? 0,
    certificate: { keyPem, chainPem: chainPem.join('') },
    services: options.services ?? [discovery],
    tokens: nodeTokens,
    logger,
  });
  let snapshot: ServedSnapshot = EMPTY_SNAPSHOT;
  return {
    address: `https://${host}:${listener.port}`,
    rootsPem: authority.bundlePem(),
    discovery,
    listener,
    tokens,
    log,
    publish: (...resources) => {
      snapshot = serveResources(resources, snapshot).snapshot;
      discovery.publish(snapshot);
    },
    [Symbol.asyncDispose]: async () => {
      await listener[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
