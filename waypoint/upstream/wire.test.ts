import { once } from 'node:events';
import { createSecureServer, type ServerHttp2Stream } from 'node:http2';
import { createServer as createHttpsServer } from 'node:https';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Svid } from '#certs/svid.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { SETTINGS } from '#ztunnel/hbone/testing.ts';
import type { BackendTls } from '../model.ts';
import type { AttemptFailure, AttemptHandlers } from './attempt.ts';
import {
  APP,
  cluster,
  downstream,
  endpoint,
  hboneGate,
  type Listening,
  listen,
  rawApp,
  WAYPOINT,
} from './testing.ts';
import { createUpstream, type Upstream } from './upstream.ts';

/** How connections to applications are made: TLS inside tunnels, time limits. */

let ca: TemporaryAuthority;
let app: Svid;
let waypoint: Svid;
let upstream: Upstream | undefined;

beforeEach(async () => {
  ca = await temporaryAuthority();
  [app, waypoint] = await Promise.all([ca.svid(APP), ca.svid(WAYPOINT)]);
});
afterEach(async () => {
  upstream?.close();
  await ca[Symbol.asyncDispose]();
});

const NAME = 'spiffe://cluster.local/ns/pay/sa/ledger';

function tlsTo(value: string): BackendTls {
  return { serverName: 'ledger.example', subjectAltNames: [{ kind: 'uri', value }], roots: app.rootsPem };
}

async function httpsApp(): Promise<Listening> {
  const identity = { key: app.privateKeyPem, cert: app.certificateChainPem };
  return await listen(
    createHttpsServer(identity, (request, response) => {
      response.end(
        `${request.httpVersion} ${'servername' in request.socket ? request.socket.servername : ''}`,
      );
    }),
  );
}

type Result = { readonly status: number; readonly text: string } | AttemptFailure;

/** One GET through a real HBONE gate. */
async function get(
  port: number,
  options: {
    readonly tls?: BackendTls;
    readonly protocol?: 'http1' | 'http2';
    readonly connectTimeoutMs?: number;
    readonly gatePort: number;
  },
): Promise<Result> {
  upstream = createUpstream({
    svid: () => waypoint,
    settings: SETTINGS,
    hopOf: () => ({ ip: '127.0.0.1', port: options.gatePort }),
  });
  const { promise, resolve } = Promise.withResolvers<Result>();
  let status = 0;
  let text = '';
  const handlers: AttemptHandlers = {
    onInform: () => undefined,
    onHead: (each) => {
      status = each;
    },
    onData: (chunk) => {
      text += chunk.toString();
    },
    onEnd: () => resolve({ status, text }),
    onUpgrade: () => undefined,
    onFailure: resolve,
    onDrain: () => undefined,
  };
  const { tls, protocol = 'http1', connectTimeoutMs = 2_000 } = options;
  const to = endpoint(port, { tunnel: 'HBONE' });
  const { caller } = downstream();
  const target = {
    caller,
    endpoint: to,
    address: to.address,
    cluster: { ...cluster([to]), connectTimeoutMs, ...(tls !== undefined && { tls }) },
  };
  const request = {
    method: 'GET',
    target: '/',
    authority: 'ledger',
    scheme: 'http',
    headers: [],
    hasBody: false,
  } as const;
  upstream.send(protocol, target, request, handlers);
  return await promise;
}

test('TLS to the application goes inside the tunnel, with the name that is asked for', async () => {
  await using gate = await hboneGate(app);
  await using server = await httpsApp();
  const result = await get(server.port, { tls: tlsTo(NAME), gatePort: gate.port });
  expect(result).toEqual({ status: 200, text: '1.1 ledger.example' });
});

test('HTTP/2 inside TLS inside the tunnel', async () => {
  await using gate = await hboneGate(app);
  const secure = createSecureServer({ key: app.privateKeyPem, cert: app.certificateChainPem });
  secure.on('stream', (stream: ServerHttp2Stream) => {
    stream.respond({ ':status': 200 });
    stream.end('h2');
  });
  secure.listen(0, '127.0.0.1');
  await once(secure, 'listening');
  const { port } = secure.address() as { port: number };
  expect(await get(port, { tls: tlsTo(NAME), protocol: 'http2', gatePort: gate.port })).toEqual({
    status: 200,
    text: 'h2',
  });
  upstream?.close();
  secure.close();
});

test.each([
  { when: 'its name is another', tls: () => tlsTo('spiffe://cluster.local/ns/pay/sa/other') },
  { when: 'only its server name could fit', tls: () => ({ ...tlsTo(NAME), subjectAltNames: [] }) },
])('an application is not believed when $when', async ({ tls }) => {
  await using gate = await hboneGate(app);
  await using server = await httpsApp();
  expect(await get(server.port, { tls: tls(), gatePort: gate.port })).toMatchObject({ kind: 'connect' });
});

test('an application of unknown roots is not believed', async () => {
  await using gate = await hboneGate(app);
  await using server = await httpsApp();
  await using other = await temporaryAuthority();
  const roots = (await other.svid(APP)).rootsPem;
  const result = await get(server.port, { tls: { ...tlsTo(NAME), roots }, gatePort: gate.port });
  expect(result).toMatchObject({ kind: 'connect' });
});

test('a hop that accepts and says nothing is given up in time', async () => {
  await using silent = await rawApp(() => undefined);
  const result = await get(1, { connectTimeoutMs: 80, gatePort: silent.port });
  expect(result).toMatchObject({ kind: 'connect-timeout' });
  await eventually('it is let go', () => silent.sockets().open === 0);
});

test('a tunnel that is refused is a connection that failed', async () => {
  await using gate = await hboneGate(app);
  expect(await get(1, { gatePort: gate.port })).toMatchObject({ kind: 'connect' });
});

test.each(['http1', 'http2'] as const)('a caller that is denied at the destination: %s', async (protocol) => {
  await using gate = await hboneGate(app, '401');
  expect(await get(8080, { protocol, gatePort: gate.port })).toMatchObject({
    kind: 'denied',
    reason: expect.stringContaining('the policy of pay/ledger-8080 denies'),
  });
});
