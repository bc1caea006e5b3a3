import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino, { type Logger } from 'pino';
import { ENVOY_TYPES, type EnvoyType } from '#api/envoy/types.ts';
import type { Resource } from '#api/resource.ts';
import { openAuthority } from '#certs/authority.ts';
import type { CallLimits } from './call-guard.ts';
import { openCallerTokens } from './caller-tokens.ts';
import type { ConnectionLimits } from './connection-guard.ts';
import { type GrpcListener, type GrpcService, type ListenerLimits, listenGrpc } from './grpc-listener.ts';
import { type ServedSnapshot, serveSnapshot, type WaypointInput } from './served-snapshot.ts';
import { createDiscoveryServer, type DiscoveryLimits, type DiscoveryServer } from './server.ts';
import { Shortages } from './shortages.ts';

/** A real discovery server on loopback, with a real certificate and tokens; for tests. */
export interface TestServer extends AsyncDisposable {
  /** `https://HOST:PORT` */
  readonly address: string;
  readonly rootsPem: string;
  readonly discovery: DiscoveryServer;
  readonly listener: GrpcListener;
  /** The folder of tokens. */
  readonly tokens: string;
  readonly shortages: Shortages;
  /** Log lines as they were written. */
  readonly log: readonly Readonly<Record<string, unknown>>[];
  /** Serves these resources from now on; what waypoints are served stays. */
  readonly publish: (...resources: readonly Resource[]) => void;
  /** Serves waypoints these from now on, by `namespace/name`; what nodes are served stays. */
  readonly publishWaypoints: (waypoints: ReadonlyMap<string, WaypointInput>) => void;
}

/** The token of a node, or of a waypoint by `namespace/name`, as {@link openTestServer} writes them. */
export function tokenOf(caller: string): string {
  return `token-of-${caller}`.padEnd(43, '-');
}

/** A waypoint's resources by type and name, each with a number that stands for its content. */
export type WaypointContents = Readonly<Partial<Record<EnvoyType, Readonly<Record<string, number>>>>>;

/** Resources of a waypoint as the server takes them, which never looks into them. */
export function waypointInput(
  contents: WaypointContents,
  authorizations: readonly string[] = [],
): WaypointInput {
  const resources = ENVOY_TYPES.map((type) => {
    const ofType = Object.entries(contents[type] ?? {}).map(([name, content]) => {
      const value = Buffer.from(`${name} ${content}`);
      return [name, { type, name, value }] as const;
    });
    return [type, new Map(ofType)] as const;
  });
  return { resources: new Map(resources), authorizations };
}

/** Starts one that knows nodes n1 and n2 and waypoints alpha/gate and beta/gate; `services` take the place of the discovery service. */
export async function openTestServer(
  options: {
    /** Where it listens; its certificate is for `localhost` and 127.0.0.1 whatever this is. Default 127.0.0.1. */
    readonly host?: string;
    readonly port?: number;
    readonly limits?: DiscoveryLimits & CallLimits & ConnectionLimits & ListenerLimits;
    readonly services?: readonly GrpcService[];
  } = {},
): Promise<TestServer> {
  const { host = '127.0.0.1' } = options;
  const directory = await mkdtemp(join(tmpdir(), 'tulle-serve-'));
  const tokens = join(directory, 'tokens');
  await mkdir(tokens);
  for (const node of ['n1', 'n2']) await writeFile(join(tokens, node), tokenOf(node));
  await mkdir(join(tokens, 'waypoints'));
  for (const namespace of ['alpha', 'beta'])
    await writeFile(join(tokens, 'waypoints', `${namespace}_gate`), tokenOf(`${namespace}/gate`));
  const authority = await openAuthority({ directory: join(directory, 'ca'), trustDomain: 'cluster.local' });
  const { keyPem, chainPem } = await authority.issueServer({
    dnsNames: ['localhost'],
    ips: ['127.0.0.1'],
    ttlMs: 3_600_000,
  });
  const log: Readonly<Record<string, unknown>>[] = [];
  const logger: Logger = pino({ level: 'debug' }, { write: (line) => void log.push(JSON.parse(line)) });
  const callerTokens = openCallerTokens(tokens);
  const shortages = new Shortages();
  const common = {
    tokens: callerTokens,
    limits: options.limits ?? {},
    onShortage: (subject: string, error: string) => shortages.note(subject, error),
    logger,
  };
  const discovery = createDiscoveryServer(common);
  const listener = await listenGrpc({
    host,
    port: options.port ?? 0,
    certificate: { keyPem, chainPem: chainPem.join('') },
    services: options.services ?? [discovery],
    ...common,
  });
  let resources: readonly Resource[] = [];
  let waypoints: ReadonlyMap<string, WaypointInput> = new Map();
  let snapshot: ServedSnapshot | undefined;
  const serve = (): void => {
    snapshot = serveSnapshot({ resources, waypoints }, snapshot).snapshot;
    discovery.publish(snapshot);
  };
  return {
    address: `https://${host}:${listener.port}`,
    rootsPem: authority.bundlePem(),
    discovery,
    listener,
    tokens,
    shortages,
    log,
    publish: (...next) => {
      resources = next;
      serve();
    },
    publishWaypoints: (next) => {
      waypoints = next;
      serve();
    },
    [Symbol.asyncDispose]: async () => {
      await listener[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
