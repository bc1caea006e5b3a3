import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import {
  createServer,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
} from 'node:http';
import { connect, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { encodeResource } from '#api/codec.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE } from '#api/envoy/types.ts';
import type { WaypointResourceType } from '#api/envoy-client.ts';
import { AUTHORIZATION_TYPE } from '#api/resource.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { policy } from '#test/kit/resources.ts';
import { connectHop } from '#ztunnel/hbone/client.ts';
import {
  clusterBytes,
  endpointsBytes,
  LEDGER,
  listenerBytes,
  routesBytes,
  routeTo,
} from './config/testing.ts';
import { ask, WAYPOINT, WEB } from './downstream/testing.ts';
import { parseWaypointSettings } from './settings.ts';
import { TunnelDuplex } from './tunnel-duplex.ts';
import { HBONE_SETTINGS, Waypoint } from './waypoint.ts';

/** A caller's HBONE, the waypoint, an application: all of it with real sockets, and the configuration as it comes off the wire. */

let ca: TemporaryAuthority;
let folder: string;
let waypoint: Waypoint;
let application: Server;
let applicationPort: number;
const stop = new AbortController();

beforeAll(async () => {
  ca = await temporaryAuthority();
});
afterAll(async () => {
  await ca[Symbol.asyncDispose]();
});

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-waypoint-'));
  application = createServer((request, response) => {
    response.setHeader('x-seen', JSON.stringify(request.headers));
    response.end(`${request.method} ${request.url}`);
  });
  application.listen(0, '127.0.0.1');
  await once(application, 'listening');
  applicationPort = (application.address() as { port: number }).port;
  const settings = parseWaypointSettings(
    new Map([
      ['namespace', 'pay'],
      ['name', 'waypoint'],
      ['control-plane', 'https://127.0.0.1:1'],
      ['roots-file', join(ca.directory, 'bundle.pem')],
      ['listen', '127.0.0.1:0'],
      ['access-log', join(folder, 'access.jsonl')],
      ['drain', '2s'],
    ]),
    {},
  );
  waypoint = new Waypoint({
    settings,
    identity: WAYPOINT,
    version: '0.0.0',
    signer: { requestSvid: async (identity) => await ca.svid(identity), close: () => undefined },
    logger: pino({ level: 'silent' }),
    sockets: { dial: () => connect({ port: applicationPort, host: '127.0.0.1', allowHalfOpen: true }) },
  });
  waypoint.revocations.told();
});
afterEach(async () => {
  await waypoint[Symbol.asyncDispose]();
  application.close();
  rmSync(folder, { recursive: true, force: true });
});

function tell(type: WaypointResourceType, name: string, value: Uint8Array): void {
  expect(waypoint.apply({ type, updated: [{ name, value }], removed: [] })).toEqual([]);
}

function tellLedger(authorizations: readonly string[] = []): void {
  tell(CLUSTER_TYPE, LEDGER, clusterBytes(LEDGER));
  tell(ENDPOINT_TYPE, LEDGER, endpointsBytes(LEDGER, [1], { tunnel: 'NONE' }));
  tell(LISTENER_TYPE, LEDGER, listenerBytes(LEDGER, { authorizations }));
  tell(ROUTE_TYPE, LEDGER, routesBytes(LEDGER, [routeTo(LEDGER)]));
}

async function open(): Promise<{ readonly ip: string; readonly port: number }> {
  const address = await waypoint.open(stop.signal);
  if (address === undefined) throw new Error('it does not listen');
  return address;
}

async function tunnelTo(
  address: { ip: string; port: number },
  authority = '10.96.0.1:80',
): Promise<TunnelDuplex> {
  const connection = await connectHop({
    hop: address,
    svid: await ca.svid(WEB),
    expected: [WAYPOINT],
    dial: ({ ip, port }) => connect({ host: ip, port }),
    settings: HBONE_SETTINGS,
    timeoutMs: 5_000,
    onClose: () => undefined,
  });
  const { stream, answer } = ask(connection, authority, [
    ['baggage', 'k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web,service.version=v1'],
    ['x-tulle-connection', 'ab'.repeat(16)],
  ]);
  expect((await answer).status).toBe('200');
  const socket = new TunnelDuplex(stream);
  socket.on('error', () => undefined);
  return socket;
}

async function get(
  socket: TunnelDuplex,
  path: string,
  headers: Record<string, string> = {},
): Promise<{
  readonly status: number | undefined;
  readonly text: string;
  readonly headers: IncomingHttpHeaders;
}> {
  const request = httpRequest({
    path,
    headers: { host: 'ledger.pay', connection: 'keep-alive', ...headers },
    createConnection: () => socket,
  });
  request.end();
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  let text = '';
  for await (const chunk of response) text += String(chunk);
  return { status: response.statusCode, text, headers: response.headers };
}

async function logLines(count: number): Promise<readonly Record<string, unknown>[]> {
  return await eventually('the access log', () => {
    const lines = readFileSync(join(folder, 'access.jsonl'), 'utf8').trim().split('\n');
    return lines.length >= count && lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  });
}

test('it takes callers when it has a certificate and everything that its listeners name', async () => {
  const opened = waypoint.open(stop.signal);
  expect(waypoint.pending()).toContain('configuration');
  tell(CLUSTER_TYPE, LEDGER, clusterBytes(LEDGER));
  tell(LISTENER_TYPE, LEDGER, listenerBytes(LEDGER, { authorizations: ['pay/p'] }));
  tell(ROUTE_TYPE, LEDGER, routesBytes(LEDGER, [routeTo(LEDGER)]));
  await eventually('the certificate', () => !waypoint.pending().includes('certificate'));
  expect(waypoint.configuration.missing()).toEqual([LEDGER, 'pay/p']);
  tell(ENDPOINT_TYPE, LEDGER, endpointsBytes(LEDGER, [1], { tunnel: 'NONE' }));
  waypoint.apply({ type: AUTHORIZATION_TYPE, updated: [], removed: ['pay/p'] });
  expect(await opened).toBeDefined();
  expect(waypoint.pending()).toEqual([]);
});

test('a request goes to the application, and is told of in log, metrics and status', async () => {
  tellLedger();
  const socket = await tunnelTo(await open());
  const answer = await get(socket, '/pay?x=1', {
    'user-agent': 'a "b"',
    'x-forwarded-client-cert': 'forged',
  });
  expect(answer).toMatchObject({ status: 200, text: 'GET /pay?x=1' });
  const seen = JSON.parse(String(answer.headers['x-seen'])) as Record<string, string>;
  expect(seen['x-forwarded-client-cert']).toContain('URI=spiffe://cluster.local/ns/shop/sa/web');
  expect(seen['x-forwarded-client-cert']).not.toContain('forged');

  const [line] = await logLines(1);
  expect(line).toMatchObject({
    method: 'GET',
    path: '/pay?x=1',
    protocol: 'HTTP/1.1',
    authority: 'ledger.pay',
    response_code: 200,
    response_flags: '-',
    bytes_sent: 12,
    duration: expect.any(Number) as number,
    user_agent: 'a "b"',
    backend: 'pay/ledger:80',
    upstream_host: '10.1.0.1:8080',
    upstream_cluster: LEDGER,
    'dst.workload': 'ledger-1',
    'src.identity': 'spiffe://cluster.local/ns/shop/sa/web',
    'src.workload': 'web',
    destination: '10.96.0.1:80',
    connection_id: 'ab'.repeat(16),
    attempts: 1,
  });
  expect(line?.['start_time']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);

  const text = await waypoint.metrics.text();
  expect(text).toMatch(
    /^istio_requests_total\{reporter="waypoint",source_workload="web",.*destination_service_name="ledger".*response_code="200",response_flags="-".*\} 1$/m,
  );
  expect(text).toMatch(/^istio_request_duration_milliseconds_count\{.*\} 1$/m);
  expect(text).toMatch(/^tulle_waypoint_tunnels 1$/m);
  const view = waypoint.view(() => 'info');
  expect(view.status()).toMatchObject({
    ready: true,
    serves: ['pay/ledger.pay.svc.cluster.local'],
    tunnels: 1,
  });
  const dump = JSON.stringify(await view.configDump());
  expect(dump).toContain('RouteConfiguration');
  expect(dump).not.toContain('PRIVATE KEY');
  socket.destroy();
});

test('a policy that a listener names is enforced, and one that is missing denies', async () => {
  tellLedger(['pay/p']);
  const deny = policy({ name: 'p', namespace: 'pay', action: 'DENY' });
  tell(AUTHORIZATION_TYPE, 'pay/p', encodeResource(deny));
  const socket = await tunnelTo(await open());
  expect((await get(socket, '/a')).status).toBe(403);
  tell(AUTHORIZATION_TYPE, 'pay/p', encodeResource({ ...deny, action: 'ALLOW' }));
  expect((await get(socket, '/b')).status).toBe(200);
  waypoint.apply({ type: AUTHORIZATION_TYPE, updated: [], removed: ['pay/p'] });
  expect((await get(socket, '/c')).status).toBe(403);
  expect((await logLines(3)).map((line) => line['response_code_details'])).toEqual([
    'AuthorizationPolicy pay/p denies',
    undefined,
    'AuthorizationPolicy pay/p has not come',
  ]);
  socket.destroy();
});

test('a policy that changes ends what it does not let in any more, within a second', async () => {
  application.removeAllListeners('request');
  application.on('request', (_request, response: { write: (text: string) => void }) =>
    response.write('half'),
  );
  tellLedger(['pay/p']);
  const allow = policy({ name: 'p', namespace: 'pay', action: 'ALLOW' });
  tell(AUTHORIZATION_TYPE, 'pay/p', encodeResource(allow));
  const socket = await tunnelTo(await open());
  socket.resume().write('GET /endless HTTP/1.1\r\nHost: ledger.pay\r\n\r\n');
  await eventually('the answer has begun', () => socket.bytesRead > 0);
  tell(AUTHORIZATION_TYPE, 'pay/p', encodeResource({ ...allow, action: 'DENY' }));
  const start = performance.now();
  await eventually('it is cut', () => socket.closed);
  expect(performance.now() - start).toBeLessThan(1_000);
  expect((await logLines(1))[0]).toMatchObject({
    response_code: 200,
    response_flags: 'LR',
    response_code_details: 'no longer allowed: AuthorizationPolicy pay/p denies',
  });
});

test('what was refused before anybody saw it is in the log and the metrics', async () => {
  tellLedger();
  const address = await open();
  const socket = await tunnelTo(address);
  socket.end('GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n');
  const [line] = await logLines(1);
  expect(line).toMatchObject({
    response_code: 400,
    response_flags: 'DPE',
    response_code_details: 'more than one Host',
  });
  const { answer } = ask(
    await connectHop({
      hop: address,
      svid: await ca.svid(WEB),
      expected: [WAYPOINT],
      dial: ({ ip, port }) => connect({ host: ip, port }),
      settings: HBONE_SETTINGS,
      timeoutMs: 5_000,
      onClose: () => undefined,
    }),
    '10.9.9.9:80',
  );
  expect((await answer).status).toBe('404');
  expect((await logLines(2))[1]).toMatchObject({
    method: 'CONNECT',
    authority: '10.9.9.9:80',
    response_code: 404,
  });
  expect(await waypoint.metrics.text()).toContain('tulle_waypoint_tunnels_refused_total{status="404"} 1');
});

test('who fails in the handshake is in the log, with its address', async () => {
  tellLedger();
  const { ip, port } = await open();
  const socket = connect({ host: ip, port });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  const { localPort } = socket;
  socket.write('GET / HTTP/1.1\r\n\r\n');
  expect((await logLines(1))[0]).toMatchObject({
    protocol: 'HBONE',
    response_flags: 'DPE',
    response_code_details: expect.stringMatching(/^TLS handshake failed: /) as string,
    downstream_remote_address: `127.0.0.1:${localPort}`,
  });
  expect(await waypoint.metrics.text()).toMatch(/^tulle_waypoint_sessions_failed_total 1$/m);
  socket.destroy();
});

test('it drains: idle callers go, the request in flight is answered', async () => {
  tellLedger();
  const reached = Promise.withResolvers<() => void>();
  application.removeAllListeners('request');
  application.on('request', (_request, response: { end: (text: string) => void }) =>
    reached.resolve(() => response.end('late')),
  );
  const socket = await tunnelTo(await open());
  const answer = get(socket, '/slow');
  const respond = await reached.promise;
  const drained = waypoint.drain();
  expect(waypoint.pending()).toEqual(['draining']);
  respond();
  expect(await answer).toMatchObject({ status: 200, text: 'late', headers: { connection: 'close' } });
  await drained;
});
