import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { SocketLeg } from '#ztunnel/hbone/socket-leg.ts';
import { connectionPair, OK, request, SETTINGS, socketPair } from '#ztunnel/hbone/testing.ts';
import type { Verdict } from '#ztunnel/policy/verdict.ts';
import { roomyLedger } from './memory/testing.ts';
import type { Cluster, Fault, Frontend, WaypointConfig } from './model.ts';
import type { RequestRecord } from './request-record.ts';
import { createServeDeps, type ServeDeps } from './serve-deps.ts';
import { serveRequest } from './serve-request.ts';
import { serveTcp } from './serve-tcp.ts';
import {
  cluster,
  downstream,
  endpoint,
  FRONTEND,
  MemoryExchange,
  rawApp,
  WAYPOINT,
} from './upstream/testing.ts';
import { createUpstream, type Upstream } from './upstream/upstream.ts';

/** What is under way when policies change: it ends if it would not be let in now. */

const ALLOW: Verdict = { kind: 'allow', reason: 'no-allow-policy', dryRun: [] };
const DENY: Verdict = { kind: 'deny', reason: 'denied-by-policy', policy: 'pay/p', dryRun: [] };
const NO_CHANGES = { set: [], add: [], remove: [] };
const WHY = 'no longer allowed: AuthorizationPolicy pay/p denies';

let upstream: Upstream;
let verdict: Verdict;
let asked: number;
let records: RequestRecord[];
let opened: RequestRecord[];

beforeEach(() => {
  upstream = createUpstream({ svid: () => undefined, settings: SETTINGS });
  verdict = ALLOW;
  asked = 0;
  records = [];
  opened = [];
});
afterEach(() => upstream.close());

function depsFor(to: Cluster, faults: readonly Fault[] = []): ServeDeps {
  const origin = { object: 'HTTPRoute pay/ledger', rule: 0 };
  const backends = [{ cluster: to.name, weight: 1, requestHeaders: NO_CHANGES, responseHeaders: NO_CHANGES }];
  const frontend: Frontend = { ...FRONTEND, tcp: [{ serverNames: [], backends, origin }] };
  const route = {
    name: 'HTTPRoute pay/ledger rule 0 match 0',
    origin,
    match: { path: { kind: 'prefix', value: '' }, headers: [], query: [] },
    action: {
      kind: 'forward',
      backends,
      mirrors: [],
      timeoutMs: 0,
      retry: {
        attempts: 1,
        on: { connectFailure: true, reset: false, statusCodes: [] },
        perTryTimeoutMs: 0,
        backoffMs: 0,
        maxBackoffMs: 250,
      },
      hashOn: [],
    },
    requestHeaders: NO_CHANGES,
    responseHeaders: NO_CHANGES,
    faults,
  } as const;
  const config: WaypointConfig = {
    frontends: { find: () => frontend, named: () => frontend, all: () => [frontend] },
    routes: new Map([[FRONTEND.name, { name: FRONTEND.name, routes: [route] }]]),
    clusters: new Map([[to.name, to]]),
  };
  return createServeDeps({
    ledger: roomyLedger(),
    config: () => config,
    upstream,
    identity: () => WAYPOINT,
    authorize: () => {
      asked += 1;
      return verdict;
    },
    record: (record) => records.push(record),
    opened: (record) => opened.push(record),
  });
}

function denyNow(deps: ServeDeps): void {
  verdict = DENY;
  deps.live.recheck();
}

test('a request that waits for its answer is answered with 403', async () => {
  await using app = await rawApp(() => undefined);
  const deps = depsFor(cluster([endpoint(app.port)]));
  const exchange = new MemoryExchange();
  serveRequest(exchange, deps);
  await eventually('the request is there', () => app.sockets().open === 1);
  denyNow(deps);
  await exchange.over;
  expect([exchange.status, exchange.text]).toEqual([403, 'RBAC: access denied']);
  expect(records).toMatchObject([{ status: 403, details: WHY }]);
  await eventually('it is given up upstream', () => app.sockets().open === 0);
  expect(deps.live.size).toBe(0);
});

test('so is one that waits for a fault, before anything is sent', async () => {
  await using app = await rawApp(() => undefined);
  const fault: Fault = {
    policy: 'TrafficPolicy pay/slow',
    name: 'slow',
    where: 'downstream',
    expires_at_ms: Number.MAX_SAFE_INTEGER,
    percent: 100,
    headers: [],
    delay_ms: 60_000,
  };
  const deps = depsFor(cluster([endpoint(app.port)]), [fault]);
  const exchange = new MemoryExchange();
  serveRequest(exchange, deps);
  expect(exchange.status).toBe(0);
  denyNow(deps);
  await exchange.over;
  expect([exchange.status, app.sockets().made]).toEqual([403, 0]);
});

test('an answer that is coming in is cut short', async () => {
  await using app = await rawApp((socket) =>
    socket.write('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf'),
  );
  const deps = depsFor(cluster([endpoint(app.port)]));
  const exchange = new MemoryExchange();
  serveRequest(exchange, deps);
  await eventually('half of it is there', () => exchange.text === 'half');
  denyNow(deps);
  await exchange.over;
  expect([exchange.status, exchange.isAborted]).toEqual([200, true]);
  expect(records).toMatchObject([{ status: 200, flags: ['LR'], details: WHY }]);
  await eventually('it is given up upstream', () => app.sockets().open === 0);
});

test('a WebSocket is cut', async () => {
  await using app = await rawApp((socket) =>
    socket.write('HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n'),
  );
  const deps = depsFor(cluster([endpoint(app.port)]));
  const exchange = new MemoryExchange({ upgrade: 'websocket' });
  serveRequest(exchange, deps);
  await eventually('it is open', () => exchange.upgraded?.events !== undefined);
  denyNow(deps);
  await eventually('it is cut', () => exchange.upgraded?.isAborted === true);
  expect(records).toMatchObject([{ status: 101, flags: ['LR'], details: WHY }]);
  await eventually('upstream, too', () => app.sockets().open === 0);
});

test('what is still allowed goes on', async () => {
  await using app = await rawApp((socket) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhe'));
  const deps = depsFor(cluster([endpoint(app.port)]));
  const exchange = new MemoryExchange();
  serveRequest(exchange, deps);
  await eventually('half of it is there', () => exchange.text === 'he');
  const before = asked;
  deps.live.recheck();
  await eventually('it is asked for again', () => asked > before);
  expect([exchange.isAborted, deps.live.size]).toEqual([false, 1]);
});

test('a TCP connection is counted when it opens, and cut', async () => {
  await using app = await rawApp((socket, text) => socket.write(`re: ${text}`));
  const deps = depsFor(cluster([endpoint(app.port)]));
  const { near, far } = await socketPair();
  near.on('error', () => undefined);
  await serveTcp({ downstream: downstream(), leg: new SocketLeg(far) }, deps);
  near.write('hi');
  await once(near, 'data');
  expect([opened.length, records.length]).toEqual([1, 0]);
  denyNow(deps);
  await eventually('it is cut', () => near.closed);
  expect(near.errored).toMatchObject({ code: 'ECONNRESET' });
  expect(records).toMatchObject([{ flags: ['LR'], details: WHY, bytesReceived: 2 }]);
  await eventually('upstream, too', () => app.sockets().open === 0);
  expect([opened.length, deps.live.size]).toEqual([1, 0]);
});

test.each([
  { who: 'the caller leaves', flag: 'DC' },
  { who: 'it is denied', flag: 'LR' },
])('a connection that is being opened is given up when $who', async ({ who, flag }) => {
  let attempt: Socket | undefined;
  upstream.close();
  upstream = createUpstream({
    svid: () => undefined,
    settings: SETTINGS,
    dial: () => {
      // Its name is looked up for ever.
      attempt = connect({ host: 'nowhere.invalid', port: 1, lookup: () => undefined });
      return attempt;
    },
  });
  const deps = depsFor(cluster([endpoint(1)], { connectTimeoutMs: 60_000 }));
  const served = Promise.withResolvers<void>();
  const { client, server } = await connectionPair((leg) => {
    server.respond(leg, OK, false);
    serveTcp({ downstream: downstream(), leg }, deps).then(served.resolve, served.reject);
  });
  const { stream } = request(client);
  await eventually('it is tried', () => attempt !== undefined);
  if (who === 'it is denied') denyNow(deps);
  else stream.abort();
  await served.promise;
  expect(attempt?.destroyed).toBe(true);
  expect(records).toMatchObject([{ flags: [flag], attempts: 1 }]);
  client.close('over');
});
