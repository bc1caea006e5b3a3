import { Writable } from 'node:stream';
import { type Metadata, Server, ServerCredentials } from '@grpc/grpc-js';
import { pino } from 'pino';
import { type Identity, parseIdentity } from './identity.ts';
import type { IssuedRecord } from './issued.ts';
import { createSignerClient, type SignerClientOptions } from './signer-client.ts';
import { type Caller, createSignerService } from './signer-service.ts';
import type { Svid } from './svid.ts';
import { type TemporaryAuthority, temporaryAuthority } from './testing.ts';

export const WEB: Identity = parseIdentity('spiffe://cluster.local/ns/shop/sa/web');
export const CART: Identity = parseIdentity('spiffe://cluster.local/ns/shop/sa/cart');
export const GATEWAY: Identity = parseIdentity('spiffe://cluster.local/ns/shop/sa/gateway');
export const HOUR_S = 3600;

/** A signing service on loopback, with real keys, what it recorded and what it logged; for tests. */
export interface TestSigner extends AsyncDisposable {
  readonly ca: TemporaryAuthority;
  readonly port: number;
  readonly recorded: IssuedRecord[];
  readonly logged: Record<string, unknown>[];
  /** Node n1's client, unless told otherwise. */
  client(options?: Partial<SignerClientOptions>): TestClient;
}

/** A client that closes itself. */
interface TestClient extends AsyncDisposable {
  requestSvid(identity: Identity, ttlSeconds: number, signal?: AbortSignal): Promise<Svid>;
}

const CALLERS: ReadonlyMap<string, Caller> = new Map([
  ['Bearer node-1', { node: 'n1' }],
  ['Bearer gateway', { node: 'n2', identity: GATEWAY }],
]);

/** Starts one: node n1 runs `web`, the gateway is its own; a day by default, two at most. Dispose of it. */
export async function startSigner(): Promise<TestSigner> {
  const ca = await temporaryAuthority();
  const recorded: IssuedRecord[] = [];
  const logged: Record<string, unknown>[] = [];
  const service = createSignerService({
    authority: ca.authority,
    authenticate: (metadata: Metadata) => CALLERS.get(String(metadata.get('authorization')[0])),
    mayImpersonate: ({ node }, identity) => node === 'n1' && identity.serviceAccount === 'web',
    record: (issued) => recorded.push(issued),
    logger: pino({ base: null, timestamp: false }, collector(logged)),
    defaultTtlMs: 24 * HOUR_S * 1000,
    maxTtlMs: 48 * HOUR_S * 1000,
  });
  const server = new Server();
  server.addService(service.definition, service.implementation);
  const port = await listen(server, ca);
  return {
    ca,
    port,
    recorded,
    logged,
    client(options = {}) {
      const client = createSignerClient({
        address: `https://localhost:${port}`,
        rootsPem: () => ca.authority.bundlePem(),
        headers: async () => ({ authorization: 'Bearer node-1', clusterid: 'Kubernetes' }),
        ...options,
      });
      return { ...client, [Symbol.asyncDispose]: async () => client.close() };
    },
    async [Symbol.asyncDispose]() {
      server.forceShutdown();
      await ca[Symbol.asyncDispose]();
    },
  };
}

async function listen(server: Server, ca: TemporaryAuthority): Promise<number> {
  const names = { dnsNames: ['localhost', 'istiod.example'], ips: ['127.0.0.1', '::1'] };
  const { keyPem, chainPem } = await ca.authority.issueServer({ ...names, ttlMs: 3_600_000 });
  const pair = { private_key: Buffer.from(keyPem), cert_chain: Buffer.from(chainPem.join('')) };
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  server.bindAsync('[::]:0', ServerCredentials.createSsl(null, [pair]), (error, bound) =>
    error === null ? resolve(bound) : reject(error),
  );
  return await promise;
}

function collector(lines: Record<string, unknown>[]): Writable {
  return new Writable({
    write(line, _encoding, done) {
      lines.push(JSON.parse(String(line)));
      done();
    },
  });
}
