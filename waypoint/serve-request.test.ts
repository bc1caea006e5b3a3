import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseIdentity } from '#certs/identity.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { fieldOf } from '#ztunnel/hbone/headers.ts';
import { SETTINGS } from '#ztunnel/hbone/testing.ts';
import { roomyLedger } from './memory/testing.ts';
import type { Cluster, Fault, ForwardAction, Frontend, Route, WaypointConfig } from './model.ts';
import type { RequestRecord } from './request-record.ts';
import { createServeDeps, keepOnlyConfigured, type ServeDeps } from './serve-deps.ts';
import { serveRequest } from './serve-request.ts';
import {
  APP,
  cluster,
  deadPort,
  downstream,
  endpoint,
  FRONTEND,
  hboneGate,
  http2App,
  httpApp,
  MemoryExchange,
  rawApp,
  WAYPOINT,
  WEB,
} from './upstream/testing.ts';
import { createUpstream, type UpstreamDeps } from './upstream/upstream.ts';

/** Requests from their head to their record, with routes given by the test and real servers behind. */

/** More than a timer can wait for. */
const WEEKS_MS = 600 * 3_600_000;
const NO_CHANGES = { set: [], add: [], remove: [] };
const SAFE_RETRY: ForwardAction['retry'] = {
  attempts: 1,
  on: { connectFailure: true, reset: false, statusCodes: [] },
  perTryTimeoutMs: 0,
  backoffMs: 0,
  maxBackoffMs: 250,
};

let config: WaypointConfig;
let deps: ServeDeps;
let records: RequestRecord[];
let closers: (() => void)[];

beforeEach(() => {
  records = [];
  closers = [];
});
afterEach(() => {
  for (const close of closers) close();
});

function forwardTo(clusters: readonly Cluster[], fields: Partial<ForwardAction> = {}): ForwardAction {
  return {
    kind: 'forward',
    backends: clusters.map(({ name }) => ({
      cluster: name,
      weight: 1,
      requestHeaders: NO_CHANGES,
      responseHeaders: NO_CHANGES,
    })),
    mirrors: [],
    timeoutMs: 0,
    retry: SAFE_RETRY,
    hashOn: [],
    ...fields,
  };
}

function route(action: Route['action'], fields: Partial<Route> = {}): Route {
  return {
    name: 'HTTPRoute pay/ledger rule 0 match 0',
    origin: { object: 'HTTPRoute pay/ledger', rule: 0 },
    match: { path: { kind: 'prefix', value: '' }, headers: [], query: [] },
    action,
    requestHeaders: NO_CHANGES,
    responseHeaders: NO_CHANGES,
    faults: [],
    ...fields,
  };
}

function configOf(
  routes: readonly Route[],
  clusters: readonly Cluster[],
  frontend: Frontend = FRONTEND,
): WaypointConfig {
  const name = FRONTEND.name;
  return {
    frontends: {
      find: () => frontend,
      named: (each) => (each === name ? frontend : undefined),
      all: () => [frontend],
    },
    routes: new Map([[name, { name, routes }]]),
    clusters: new Map(clusters.map((each) => [each.name, each])),
  };
}

/** Serves with this configuration. */
function use(
  routes: readonly Route[],
  clusters: readonly Cluster[],
  options: Partial<Parameters<typeof createServeDeps>[0]> & {
    readonly upstreamDeps?: Partial<UpstreamDeps>;
    readonly frontend?: Frontend;
  } = {},
): void {
  const { upstreamDeps, frontend, ...rest } = options;
  const upstream = createUpstream({ svid: () => undefined, settings: SETTINGS, ...upstreamDeps });
  closers.push(() => upstream.close());
  config = configOf(routes, clusters, frontend);
  deps = createServeDeps({
    ledger: roomyLedger(),
    config: () => config,
    upstream,
    identity: () => WAYPOINT,
    authorize: () => ({ kind: 'allow', reason: 'no-allow-policy', dryRun: [] }),
    record: (record) => records.push(record),
    ...rest,
  });
}

function ask(
  head: Partial<MemoryExchange['head']> = {},
  options: ConstructorParameters<typeof MemoryExchange>[1] = {},
): MemoryExchange {
  const exchange = new MemoryExchange(head, options);
  serveRequest(exchange, deps);
  return exchange;
}

async function asked(head: Partial<MemoryExchange['head']> = {}): Promise<MemoryExchange> {
  const exchange = ask(head);
  await exchange.over;
  return exchange;
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += String(chunk);
  return text;
}

/** Answers with what it was sent. */
async function echo(seen: IncomingHttpHeaders[] = []): ReturnType<typeof httpApp> {
  return await httpApp((request, response) => {
    seen.push(request.headers);
    textOf(request).then(
      (text) => response.end(`${request.method} ${request.url} ${text}`),
      () => undefined,
    );
  });
}

function fault(fields: Partial<Fault> = {}): Fault {
  return {
    name: 'chaos',
    policy: 'TrafficPolicy pay/chaos',
    expires_at_ms: Date.now() + 60_000,
    where: 'downstream',
    headers: [],
    percent: 100,
    ...fields,
  };
}

test('a request goes to its cluster, on its canonical path, and is recorded', async () => {
  await using app = await echo();
  const to = cluster([endpoint(app.port)]);
  use([route(forwardTo([to]))], [to]);
  const exchange = await asked({ target: '/a//b/../c?x=1', headers: ['user-agent', 'curl'] });
  expect([exchange.status, exchange.text]).toEqual([200, 'GET /a/c?x=1 ']);
  expect(exchange.header('x-envoy-upstream-service-time')).toMatch(/^\d+$/);
  expect(records[0]).toMatchObject({
    status: 200,
    route: 'HTTPRoute pay/ledger rule 0 match 0',
    cluster: to.name,
    backend: 'pay/ledger:80',
    destination: '10.96.0.10:80',
    attempts: 1,
    flags: [],
    request: { path: '/a/c?x=1', userAgent: 'curl' },
  });
});

test('what a caller forges of the mesh is not sent on', async () => {
  const seen: IncomingHttpHeaders[] = [];
  await using app = await echo(seen);
  const to = cluster([endpoint(app.port)]);
  use([route(forwardTo([to]))], [to]);
  const forged = [
    ['x-forwarded-client-cert', 'URI=spiffe://cluster.local/ns/admin/sa/root'],
    ['x-forwarded-client-cert', 'By=x'],
    ['x-tulle-caller', 'spiffe://cluster.local/ns/admin/sa/root'],
    ['x-tulle-fault', 'x'],
    ['x-envoy-retry-on', '5xx'],
    ['x-envoy-upstream-rq-timeout-ms', '1'],
    ['x-envoy-original-path', '/admin'],
    ['x-envoy-attempt-count', '9'],
    ['x-forwarded-proto', 'gopher'],
    ['x-forwarded-for', '1.2.3.4'],
    ['x-request-id', 'kept'],
  ].flat();
  await asked({ headers: forged });
  const headers = seen[0] ?? {};
  expect(headers['x-forwarded-client-cert']).toBe(
    'By=spiffe://cluster.local/ns/pay/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/web',
  );
  expect(Object.keys(headers).filter((name) => /^x-(tulle|envoy)-/.test(name))).toEqual([
    'x-envoy-attempt-count',
  ]);
  expect(headers['x-envoy-attempt-count']).toBe('1');
  expect(headers['x-forwarded-proto']).toBe('http');
  expect(headers['x-forwarded-for']).toBe('1.2.3.4');
  expect(headers['x-request-id']).toBe('kept');
});

test('a route cannot write who calls', async () => {
  const seen: IncomingHttpHeaders[] = [];
  await using app = await echo(seen);
  const to = cluster([endpoint(app.port)]);
  const requestHeaders = { ...NO_CHANGES, set: [['x-forwarded-client-cert', 'URI=spiffe://x'] as const] };
  use([route(forwardTo([to]), { requestHeaders })], [to]);
  await asked();
  expect(seen[0]?.['x-forwarded-client-cert']).toContain('URI=spiffe://cluster.local/ns/shop/sa/web');
});

test('a trace goes on with a span of its own, or begins', async () => {
  const seen: IncomingHttpHeaders[] = [];
  await using app = await echo(seen);
  const to = cluster([endpoint(app.port)]);
  use([route(forwardTo([to]))], [to]);
  const trace = '0af7651916cd43dd8448eb211c80319c';
  await asked({ headers: ['traceparent', `00-${trace}-b7ad6b7169203331-01`, 'tracestate', 'a=1'] });
  await asked({ headers: ['traceparent', 'nonsense', 'tracestate', 'a=1'] });
  expect(seen.map((headers) => headers['tracestate'])).toEqual(['a=1', undefined]);
  expect(seen[0]?.['traceparent']).toMatch(new RegExp(`^00-${trace}-(?!b7ad6b7169203331)[0-9a-f]{16}-01$`));
  expect(seen[1]?.['traceparent']).toMatch(/^00-(?!0af7)[0-9a-f]{32}-[0-9a-f]{16}-00$/);
  expect(records[0]?.request?.traceparent).toBe(seen[0]?.['traceparent']);
});

test('headers are changed on the way there and back', async () => {
  const seen: IncomingHttpHeaders[] = [];
  await using app = await echo(seen);
  const to = cluster([endpoint(app.port)]);
  const action = forwardTo([to], { hostRewrite: 'other', pathRewrite: { kind: 'prefix', value: '/v2' } });
  const match = { path: { kind: 'prefix' as const, value: '/v1' }, headers: [], query: [] };
  const requestHeaders = { set: [['x-a', '1'] as const], add: [], remove: ['x-b'] };
  const responseHeaders = { set: [['x-c', '3'] as const], add: [], remove: ['date'] };
  use([route(action, { match, requestHeaders, responseHeaders })], [to]);
  const exchange = await asked({ target: '/v1/x?y=z', headers: ['x-b', '2'] });
  expect(exchange.text).toBe('GET /v2/x?y=z ');
  expect(seen[0]).toMatchObject({ host: 'other', 'x-a': '1', 'x-envoy-original-path': '/v1/x?y=z' });
  expect(seen[0]?.['x-envoy-original-host']).toBe('ledger.pay');
  expect(seen[0]).not.toHaveProperty('x-b');
  expect([exchange.header('x-c'), exchange.header('date')]).toEqual(['3', undefined]);
});

test.each([
  {
    when: 'no route matches',
    head: { target: '/other' },
    status: 404,
    flags: ['NR'],
    details: 'no route matches',
  },
  { when: 'the path is ambiguous', head: { target: '/a%2fb' }, status: 400, flags: [], details: 'ambiguous' },
  {
    when: 'the cluster is missing',
    head: { target: '/gone' },
    status: 500,
    flags: ['NC'],
    details: 'no cluster',
  },
  {
    when: 'no endpoint is healthy',
    head: { target: '/empty' },
    status: 503,
    flags: ['UH'],
    details: 'healthy',
  },
])('the answer is $status when $when', async ({ head, status, flags, details }) => {
  const empty = cluster([endpoint(1, { health: 'unhealthy' })]);
  const gone = cluster([], { name: 'gone' });
  const at = (value: string): Pick<Route, 'match'> => ({
    match: { path: { kind: 'exact', value }, headers: [], query: [] },
  });
  use([route(forwardTo([gone]), at('/gone')), route(forwardTo([empty]), at('/empty'))], [empty]);
  const exchange = await asked(head);
  expect(exchange.status).toBe(status);
  expect(records[0]).toMatchObject({ status, flags });
  expect(records[0]?.details).toContain(details);
});

test('what may not be is refused before anything else is done', async () => {
  const to = cluster([endpoint(await deadPort())]);
  const faults = [fault({ abort_http_status: 418 })];
  use([route({ kind: 'redirect', status: 302, host: 'x' }, { faults })], [to], {
    authorize: () => ({ kind: 'deny', reason: 'denied-by-policy', policy: 'pay/p', dryRun: [] }),
  });
  const exchange = await asked();
  expect([exchange.status, exchange.text, exchange.header('location')]).toEqual([
    403,
    'RBAC: access denied',
    undefined,
  ]);
  expect(records[0]?.details).toBe('AuthorizationPolicy pay/p denies');
});

test('a frontend that refuses says why in the record only', async () => {
  use([route({ kind: 'direct', status: 200, body: 'no' })], [], {
    frontend: { ...FRONTEND, refuse: 'AuthorizationPolicy pay/p is not understood' },
  });
  const exchange = await asked();
  expect([exchange.status, exchange.text]).toEqual([403, 'RBAC: access denied']);
  expect(records[0]?.details).toBe('AuthorizationPolicy pay/p is not understood');
});

test('gRPC gets its own kind of refusal', async () => {
  use([], []);
  const exchange = await asked({ method: 'POST', headers: ['content-type', 'application/grpc+proto'] });
  expect([exchange.status, exchange.header('grpc-status'), exchange.text]).toEqual([200, '12', '']);
  expect(records[0]).toMatchObject({ status: 200, grpcStatus: 12, flags: ['NR'] });
});

test('an injected abort is an answer with a mark, and no application sees the request', async () => {
  const to = cluster([endpoint(await deadPort())]);
  use([route(forwardTo([to]), { faults: [fault({ abort_http_status: 418 })] })], [to]);
  const exchange = await asked();
  expect([exchange.status, exchange.header('x-tulle-fault')]).toEqual([418, 'chaos']);
  expect(records[0]).toMatchObject({ status: 418, flags: ['FI'], faults: ['chaos'], attempts: 0 });
});

test('an injected delay holds the request back, and is marked', async () => {
  await using app = await echo();
  const to = cluster([endpoint(app.port)]);
  use([route(forwardTo([to]), { faults: [fault({ delay_ms: 80 })] })], [to]);
  const exchange = await asked();
  expect([exchange.status, exchange.header('x-tulle-fault')]).toEqual([200, 'chaos']);
  expect(records[0]).toMatchObject({ flags: ['DI'], faults: ['chaos'] });
  expect(records[0]?.durationMs).toBeGreaterThanOrEqual(79);
});

test('a delay of weeks is a delay', async () => {
  await using app = await echo();
  const to = cluster([endpoint(app.port)]);
  const isForSome = fault({ delay_ms: WEEKS_MS, max_concurrent: 1 });
  use([route(forwardTo([to]), { faults: [isForSome] })], [to]);
  const delayed = ask();
  expect([(await asked()).status, delayed.status]).toEqual([200, 0]);
  delayed.leave();
  expect(records.map(({ flags }) => flags)).toEqual([[], ['DI', 'DC']]);
});

test('a fault of tries is drawn for each, so that a retry can save the request', async () => {
  await using app = await echo();
  const to = cluster([endpoint(app.port)]);
  const retry = { ...SAFE_RETRY, on: { ...SAFE_RETRY.on, statusCodes: [503] } };
  const faults = [fault({ where: 'upstream', abort_http_status: 503, percent: 50 })];
  const draws = [0.1, 0, 0.9];
  use([route(forwardTo([to], { retry }), { faults })], [to], { random: () => draws.shift() ?? 0.9 });
  const exchange = await asked();
  expect(exchange.status).toBe(200);
  expect(records[0]).toMatchObject({ status: 200, attempts: 2, flags: ['FI'], faults: ['chaos'] });
});

test('a fault takes no more requests at a time than it may', async () => {
  await using app = await echo();
  const to = cluster([endpoint(app.port)]);
  use([route(forwardTo([to]), { faults: [fault({ delay_ms: 100, max_concurrent: 2 })] })], [to]);
  const exchanges = Array.from({ length: 5 }, () => ask());
  await Promise.all(exchanges.map(({ over }) => over));
  expect(records.filter(({ faults }) => faults.length > 0)).toHaveLength(2);
  const later = await asked();
  expect(later.header('x-tulle-fault')).toBe('chaos');
});

test('a fault that has expired is not injected', async () => {
  await using app = await echo();
  const to = cluster([endpoint(app.port)]);
  use(
    [route(forwardTo([to]), { faults: [fault({ abort_http_status: 500, expires_at_ms: Date.now() - 1 })] })],
    [to],
  );
  expect((await asked()).status).toBe(200);
});

test('an answer can be made slow', async () => {
  await using app = await httpApp((_request, response) => response.end(Buffer.alloc(64 * 1024)));
  const to = cluster([endpoint(app.port)]);
  use([route(forwardTo([to]), { faults: [fault({ response_kbps: 256 })] })], [to]);
  const exchange = await asked();
  expect(exchange.bytesSent()).toBe(64 * 1024);
  expect(records[0]?.durationMs).toBeGreaterThan(180);
  expect(records[0]).toMatchObject({ status: 200, faults: ['chaos'] });
});

test('a client that leaves during a delay is not waited for', async () => {
  const to = cluster([endpoint(await deadPort())]);
  use([route(forwardTo([to]), { faults: [fault({ delay_ms: 60_000 })] })], [to]);
  const exchange = ask();
  exchange.leave();
  expect(records[0]).toMatchObject({ status: 0, flags: ['DI', 'DC'], attempts: 0 });
  expect(deps.faults.active(fault())).toBe(0);
});

test('weights are kept exactly', async () => {
  const counts = new Map<string, number>();
  await using app = await httpApp((_request, response) => response.end());
  const a = cluster([endpoint(app.port)], { name: 'a' });
  const b = cluster([endpoint(app.port)], { name: 'b' });
  const action = forwardTo([a, b]);
  const backends = action.backends.map((backend, index) => ({ ...backend, weight: [70, 30][index] ?? 0 }));
  use([route({ ...action, backends })], [a, b]);
  for (let count = 0; count < 100; count++) await asked();
  for (const { cluster: name } of records) counts.set(name, (counts.get(name) ?? 0) + 1);
  expect(Object.fromEntries(counts)).toEqual({ a: 70, b: 30 });
});

test('a mirror gets the request and its body, and cannot harm it', async () => {
  const mirrored: string[] = [];
  await using app = await echo();
  await using copy = await httpApp((request, response) => {
    textOf(request).then(
      (text) => {
        mirrored.push(`${request.headers.host} ${text}`);
        response.writeHead(500).end();
      },
      () => undefined,
    );
  });
  const to = cluster([endpoint(app.port)]);
  const shadow = cluster([endpoint(copy.port)], { name: 'shadow' });
  const broken = cluster([endpoint(await deadPort())], { name: 'broken' });
  const mirrors = ['shadow', 'broken', 'missing'].map((name) => ({ cluster: name, share: 1 }));
  use([route(forwardTo([to], { mirrors }))], [to, shadow, broken]);
  const exchange = ask({ method: 'POST', authority: 'ledger.pay:80' }, { hasBody: true });
  exchange.send('both', true);
  await exchange.over;
  expect([exchange.status, exchange.text]).toEqual([200, 'POST / both']);
  await eventually('the copy', () => mirrored.length === 1);
  expect(mirrored).toEqual(['ledger.pay:80 both']);
  await eventually('no copy is left', () => deps.mirrors.counts().active === 0);
});

test('a session stays with its endpoint, also while that drains', async () => {
  await using one = await httpApp((_request, response) => response.end('one'));
  await using two = await httpApp((_request, response) => response.end('two'));
  const to = cluster([endpoint(one.port), endpoint(two.port)]);
  const session = { kind: 'cookie', name: 'stick', path: '/', ttlSeconds: 0 } as const;
  use([route(forwardTo([to], { session }))], [to]);
  const first = await asked();
  const cookie = (first.header('set-cookie') ?? '').split(';')[0] ?? '';
  expect(cookie).toMatch(/^stick=/);
  for (let count = 0; count < 4; count++) {
    expect((await asked({ headers: ['cookie', cookie] })).text).toBe(first.text);
  }
  const draining = to.endpoints.map((each) =>
    each.workload === records[0]?.endpoint?.workload ? { ...each, health: 'draining' as const } : each,
  );
  config = configOf([route(forwardTo([to], { session }))], [{ ...to, endpoints: draining }]);
  expect((await asked({ headers: ['cookie', cookie] })).text).toBe(first.text);
  expect((await asked()).text).not.toBe(first.text);
});

test('the newest configuration counts, also for a tunnel that was opened before', async () => {
  use([route({ kind: 'direct', status: 200, body: 'old' })], []);
  const before = await asked();
  config = configOf([route({ kind: 'direct', status: 200, body: 'new' })], []);
  const after = ask({}, { downstream: before.downstream });
  await after.over;
  expect([before.text, after.text]).toEqual(['old', 'new']);
});

test('a request in flight outlives its endpoint, and its connection does not', async () => {
  const answer = Promise.withResolvers<void>();
  await using app = await httpApp((_request, response) => {
    answer.promise.then(
      () => response.end('still here'),
      () => undefined,
    );
  });
  const to = cluster([endpoint(app.port)]);
  use([route(forwardTo([to]))], [to]);
  const exchange = ask();
  await eventually('the request is there', () => app.sockets().open === 1);
  config = configOf([route(forwardTo([to]))], [{ ...to, endpoints: [] }]);
  keepOnlyConfigured(deps, config);
  expect((await asked()).status).toBe(503);
  answer.resolve();
  await exchange.over;
  expect([exchange.status, exchange.text]).toEqual([200, 'still here']);
  await eventually('the connection is closed', () => app.sockets().open === 0);
});

test('an answer to HEAD has a length and no body, also a local one', async () => {
  use([route({ kind: 'direct', status: 200, body: 'hello' })], []);
  const exchange = await asked({ method: 'HEAD' });
  expect([exchange.header('content-length'), exchange.text]).toEqual(['5', '']);
});

test('a client that the server below has refused is recorded with that', async () => {
  const to = cluster([endpoint(await deadPort())]);
  use([route(forwardTo([to]), { faults: [fault({ delay_ms: 60_000 })] })], [to]);
  const exchange = new MemoryExchange({}, {});
  Object.assign(exchange, { failure: { status: 408, flag: 'SI', details: 'the body stopped coming' } });
  serveRequest(exchange, deps);
  exchange.leave();
  expect(records[0]).toMatchObject({ status: 408, flags: ['DI', 'SI'], details: 'the body stopped coming' });
});

test('gRPC passes over HBONE, streaming both ways', async () => {
  await using ca = await temporaryAuthority();
  await using gate = await hboneGate(await ca.svid(APP));
  const svid = await ca.svid(WAYPOINT);
  await using app = await http2App((stream) => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.pipe(stream);
  });
  const to = cluster([endpoint(app.port, { tunnel: 'HBONE' })], { protocol: 'http2' });
  const hopOf = (): { ip: string; port: number } => ({ ip: '127.0.0.1', port: gate.port });
  use([route(forwardTo([to]))], [to], { upstreamDeps: { svid: () => svid, hopOf } });
  const exchange = ask(
    { method: 'POST', headers: ['content-type', 'application/grpc', 'te', 'trailers'] },
    { hasBody: true },
  );
  await eventually('the body is wanted', () => exchange.sink !== undefined);
  exchange.send('ping');
  await eventually('it comes back', () => exchange.text === 'ping');
  exchange.send('pong', true);
  await exchange.over;
  expect([exchange.text, exchange.trailers]).toEqual(['pingpong', ['grpc-status', '0']]);
  expect(records[0]).toMatchObject({ status: 200, grpcStatus: 0 });
});

test('two callers whose requests are interleaved are each seen as themselves', async () => {
  await using ca = await temporaryAuthority();
  await using gate = await hboneGate(await ca.svid(APP));
  const svid = await ca.svid(WAYPOINT);
  const byPort = new Map<number | undefined, Set<unknown>>();
  await using app = await httpApp((request, response) => {
    const callers = byPort.get(request.socket.remotePort) ?? new Set();
    byPort.set(request.socket.remotePort, callers.add(request.headers['x-forwarded-client-cert']));
    setTimeout(() => response.end(request.headers['x-forwarded-client-cert']), 5);
  });
  const to = cluster([endpoint(app.port, { tunnel: 'HBONE' })]);
  const hopOf = (): { ip: string; port: number } => ({ ip: '127.0.0.1', port: gate.port });
  use([route(forwardTo([to]))], [to], { upstreamDeps: { svid: () => svid, hopOf } });
  const callers = [WEB, parseIdentity('spiffe://cluster.local/ns/shop/sa/admin')];
  const exchanges = Array.from({ length: 60 }, (_, index) => {
    const identity = callers[index % 2] ?? WEB;
    return ask({}, { downstream: downstream({ caller: { identity } }) });
  });
  await Promise.all(exchanges.map(({ over }) => over));
  for (const [index, { text }] of exchanges.entries())
    expect(text).toContain(`URI=spiffe://cluster.local/ns/shop/sa/${index % 2 === 0 ? 'web' : 'admin'}`);
  expect([...byPort.values()].every((seen) => seen.size === 1)).toBe(true);
  const named = new Set(gate.connects.map((fields) => fieldOf(fields, 'x-tulle-caller')));
  expect(named).toEqual(
    new Set(['spiffe://cluster.local/ns/shop/sa/web', 'spiffe://cluster.local/ns/shop/sa/admin']),
  );
  expect(fieldOf(gate.connects[0] ?? [], 'forwarded')).toBe(
    'for="10.244.1.7:40000";host=ledger.pay.svc.cluster.local',
  );
  expect(fieldOf(gate.connects[0] ?? [], 'baggage')).toBe('k8s.namespace.name=shop,k8s.deployment.name=web');
});

test('an endpoint that proves to be somebody else gets nothing', async () => {
  await using ca = await temporaryAuthority();
  await using gate = await hboneGate(await ca.svid('spiffe://cluster.local/ns/pay/sa/stranger'));
  const svid = await ca.svid(WAYPOINT);
  const to = cluster([endpoint(await deadPort(), { tunnel: 'HBONE' })]);
  const hopOf = (): { ip: string; port: number } => ({ ip: '127.0.0.1', port: gate.port });
  use([route(forwardTo([to]))], [to], { upstreamDeps: { svid: () => svid, hopOf } });
  const exchange = await asked();
  expect([exchange.status, gate.connects.length]).toEqual([503, 0]);
  expect(records[0]?.flags).toContain('UF');
});

test('a session that is cut makes requests fail that had been sent, and the next have a new one', async () => {
  await using ca: TemporaryAuthority = await temporaryAuthority();
  await using gate = await hboneGate(await ca.svid(APP));
  const svid = await ca.svid(WAYPOINT);
  let isSlow = true;
  let seen = 0;
  await using app = await httpApp((_request, response) => {
    seen += 1;
    if (!isSlow) response.end('quick');
  });
  const to = cluster([endpoint(app.port, { tunnel: 'HBONE' })]);
  const hopOf = (): { ip: string; port: number } => ({ ip: '127.0.0.1', port: gate.port });
  use([route(forwardTo([to]))], [to], { upstreamDeps: { svid: () => svid, hopOf } });
  const exchange = ask({ method: 'POST' });
  await eventually('the request is there', () => seen === 1);
  gate.cut();
  await exchange.over;
  expect([exchange.status, seen]).toEqual([503, 1]);
  expect(records[0]).toMatchObject({ flags: ['UC'], attempts: 1 });
  isSlow = false;
  expect((await asked()).text).toBe('quick');
});

test('a WebSocket over HTTP/2 is an upgrade of HTTP/1.1 upstream', async () => {
  await using app = await rawApp((socket, text) => {
    if (!text.startsWith('GET /chat HTTP/1.1')) return;
    const key = /sec-websocket-key: (\S{24})\r\n/.test(text) ? 'yes' : 'no';
    socket.write(
      `HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\nx-key: ${key}\r\n\r\n`,
    );
  });
  const to = cluster([endpoint(app.port)]);
  use([route(forwardTo([to]))], [to]);
  const head = { method: 'CONNECT', target: '/chat', upgrade: 'websocket', protocol: 'HTTP/2' } as const;
  const exchange = ask(head);
  await exchange.responded;
  expect([exchange.status, exchange.header('x-key')]).toEqual([200, 'yes']);
  expect(exchange.header('sec-websocket-accept')).toBeUndefined();
});

test("an answer that is cut short is the application's doing in the record, not the client's", async () => {
  await using app = await rawApp((socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf'));
  const to = cluster([endpoint(app.port)]);
  use([route(forwardTo([to]))], [to]);
  const exchange = await asked();
  expect(exchange.isAborted).toBe(true);
  expect(records).toHaveLength(1);
  expect(records[0]).toMatchObject({ status: 200, flags: ['UC'], bytesSent: 4 });
});

test('a retry goes to an endpoint that came meanwhile', async () => {
  await using app = await echo();
  const dead = await deadPort();
  const to = cluster([endpoint(dead)]);
  const action = forwardTo([to], { retry: { ...SAFE_RETRY, backoffMs: 30 } });
  use([route(action)], [to]);
  const exchange = ask();
  await eventually('the first try', () => deps.balancer.load(to).retries === 1);
  config = configOf([route(action)], [{ ...to, endpoints: [endpoint(app.port)] }]);
  await exchange.over;
  expect([exchange.status, records[0]?.attempts]).toEqual([200, 2]);
});

test('a caller is seen with its own address at each connection', async () => {
  await using app = await echo();
  const to = cluster([endpoint(app.port)]);
  use([route(forwardTo([to]))], [to]);
  for (const ip of ['10.244.1.7', '10.244.1.8', '10.244.1.7']) {
    const from = downstream({ caller: { address: { ip, port: 40_000 } } });
    await ask({}, { downstream: from }).over;
  }
  expect(app.sockets().made).toBe(2);
});

test('a route changes also the answer that the waypoint gives in the place of an application', async () => {
  const to = cluster([]);
  const responseHeaders = { ...NO_CHANGES, set: [['x-local', '1'] as const] };
  use([route(forwardTo([to]), { responseHeaders })], [to]);
  const exchange = await asked();
  expect([exchange.status, exchange.header('x-local'), exchange.header('content-length')]).toEqual([
    503,
    '1',
    '19',
  ]);
});
