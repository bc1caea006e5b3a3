import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { fieldOf } from '#ztunnel/hbone/headers.ts';
import { SocketLeg } from '#ztunnel/hbone/socket-leg.ts';
import { SETTINGS, socketPair } from '#ztunnel/hbone/testing.ts';
import type { Verdict } from '#ztunnel/policy/verdict.ts';
import { roomyLedger } from './memory/testing.ts';
import type { Cluster, Frontend, TcpRoute, WaypointConfig } from './model.ts';
import type { RequestRecord } from './request-record.ts';
import { createServeDeps } from './serve-deps.ts';
import { serveTcp } from './serve-tcp.ts';
import {
  APP,
  cluster,
  deadPort,
  downstream,
  endpoint,
  FRONTEND,
  hboneGate,
  rawApp,
  WAYPOINT,
} from './upstream/testing.ts';
import { createUpstream, type UpstreamDeps } from './upstream/upstream.ts';

const NO_CHANGES = { set: [], add: [], remove: [] };
let closers: (() => void)[] = [];

afterEach(() => {
  for (const close of closers) close();
  closers = [];
});

function routeTo(clusters: readonly Cluster[], serverNames: readonly string[] = []): TcpRoute {
  return {
    serverNames,
    backends: clusters.map(({ name }) => ({
      cluster: name,
      weight: 1,
      requestHeaders: NO_CHANGES,
      responseHeaders: NO_CHANGES,
    })),
    origin: { object: 'TCPRoute pay/ledger', rule: 0 },
  };
}

interface Client {
  /** The caller's end. */
  readonly socket: Socket;
  readonly records: RequestRecord[];
  readonly text: () => string;
}

async function connect(
  clusters: readonly Cluster[],
  options: {
    readonly tcp?: readonly TcpRoute[];
    readonly serverName?: string;
    readonly verdict?: Verdict;
    readonly upstream?: Partial<UpstreamDeps>;
  } = {},
): Promise<Client> {
  const frontend: Frontend = { ...FRONTEND, protocol: 'tcp', tcp: options.tcp ?? [routeTo(clusters)] };
  const config: WaypointConfig = {
    frontends: { find: () => frontend, named: () => frontend, all: () => [frontend] },
    routes: new Map(),
    clusters: new Map(clusters.map((each) => [each.name, each])),
  };
  const upstream = createUpstream({ svid: () => undefined, settings: SETTINGS, ...options.upstream });
  const records: RequestRecord[] = [];
  const deps = createServeDeps({
    ledger: roomyLedger(),
    config: () => config,
    upstream,
    identity: () => WAYPOINT,
    authorize: () => options.verdict ?? { kind: 'allow', reason: 'no-allow-policy', dryRun: [] },
    record: (record) => records.push(record),
  });
  const { near, far } = await socketPair();
  let text = '';
  near.on('data', (bytes) => {
    text += bytes.toString('latin1');
  });
  near.on('error', () => undefined);
  closers.push(() => {
    upstream.close();
    near.destroy();
  });
  const { serverName } = options;
  await serveTcp(
    {
      downstream: downstream({ frontend }),
      leg: new SocketLeg(far),
      ...(serverName !== undefined && { serverName }),
    },
    deps,
  );
  return { socket: near, records, text: () => text };
}

/** By a reset. */
async function closed({ socket }: Client): Promise<void> {
  await eventually('the connection is closed', () => socket.closed);
  expect(socket.errored).toMatchObject({ code: 'ECONNRESET' });
}

test('the share of a backend that is none is closed, and recorded as that of its route', async () => {
  const name = 'invalid|TCPRoute pay/ledger|0|0';
  const client = await connect([], { tcp: [routeTo([cluster([], { name })])] });
  await closed(client);
  expect(client.records).toMatchObject([
    { route: 'TCPRoute pay/ledger', origin: { rule: 0 }, cluster: name, backend: '', flags: ['NR'] },
  ]);
});

test('bytes go both ways, each direction ending by itself', async () => {
  await using app = await rawApp((socket, text) => socket.write(`re: ${text}`));
  const to = cluster([endpoint(app.port)]);
  const client = await connect([to]);
  client.socket.end('hello');
  await once(client.socket, 'end');
  expect(client.text()).toBe('re: hello');
  await eventually('it is recorded', () => client.records.length === 1);
  expect(client.records[0]).toMatchObject({
    protocol: 'TCP',
    status: 0,
    flags: [],
    bytesReceived: 5,
    bytesSent: 9,
    cluster: to.name,
    route: 'TCPRoute pay/ledger',
  });
});

test('another endpoint is tried when one does not answer', async () => {
  await using app = await rawApp((socket, text) => socket.write(`re: ${text}`));
  const client = await connect([cluster([endpoint(await deadPort()), endpoint(app.port)])]);
  client.socket.write('hi');
  await eventually('the answer', () => client.text() === 're: hi');
  client.socket.destroy();
  await eventually('it is recorded', () => client.records.length === 1);
  expect(client.records[0]).toMatchObject({ attempts: 2 });
});

test.each([
  { when: 'no endpoint connects', endpoints: 'dead', flag: 'UF' },
  { when: 'no endpoint is healthy', endpoints: 'none', flag: 'UH' },
])('the caller sees a reset when $when', async ({ endpoints, flag }) => {
  const dead = endpoint(await deadPort());
  const client = await connect([cluster(endpoints === 'dead' ? [dead] : [])]);
  await closed(client);
  expect(client.records[0]?.flags).toEqual([flag]);
});

test('a reset of the application is one to the caller', async () => {
  await using app = await rawApp((socket) => socket.resetAndDestroy());
  const client = await connect([cluster([endpoint(app.port)])]);
  client.socket.write('hi');
  await closed(client);
  expect(client.records[0]?.flags).toEqual(['UC']);
});

test('who may not is reset, and recorded', async () => {
  await using app = await rawApp(() => undefined);
  const verdict: Verdict = { kind: 'deny', reason: 'denied-by-policy', policy: 'pay/p', dryRun: [] };
  const client = await connect([cluster([endpoint(app.port)])], { verdict });
  await closed(client);
  expect([app.sockets().made, client.records[0]?.details]).toEqual([0, 'AuthorizationPolicy pay/p denies']);
});

test('the name in a ClientHello chooses the route', async () => {
  await using one = await rawApp((socket) => socket.write('one'));
  await using two = await rawApp((socket) => socket.write('two'));
  const [a, b] = [cluster([endpoint(one.port)], { name: 'a' }), cluster([endpoint(two.port)], { name: 'b' })];
  const tcp = [routeTo([a], ['*.example']), routeTo([b], ['b.example'])];
  const client = await connect([a, b], { tcp, serverName: 'b.example' });
  client.socket.write('hello');
  await eventually('an answer', () => client.text() !== '');
  expect(client.text()).toBe('two');
});

test('over HBONE the far end is told who calls', async () => {
  await using ca = await temporaryAuthority();
  await using gate = await hboneGate(await ca.svid(APP));
  const svid = await ca.svid(WAYPOINT);
  await using app = await rawApp((socket, text) => socket.end(`re: ${text}`));
  const hopOf = (): { ip: string; port: number } => ({ ip: '127.0.0.1', port: gate.port });
  const to = cluster([endpoint(app.port, { tunnel: 'HBONE' })]);
  const client = await connect([to], { upstream: { svid: () => svid, hopOf } });
  client.socket.write('hi');
  await eventually('the answer', () => client.text() === 're: hi');
  expect(fieldOf(gate.connects[0] ?? [], 'x-tulle-caller')).toBe('spiffe://cluster.local/ns/shop/sa/web');
});

test.each([
  { status: '401', attempts: 1, flag: 'UAEX' },
  { status: '503', attempts: 2, flag: 'UF' },
] as const)('a destination that answers $status is tried $attempts times', async (expected) => {
  await using ca = await temporaryAuthority();
  await using gate = await hboneGate(await ca.svid(APP), expected.status);
  const svid = await ca.svid(WAYPOINT);
  const hopOf = (): { ip: string; port: number } => ({ ip: '127.0.0.1', port: gate.port });
  const endpoints = [endpoint(1, { tunnel: 'HBONE' }), endpoint(2, { tunnel: 'HBONE' })];
  const client = await connect([cluster(endpoints)], { upstream: { svid: () => svid, hopOf } });
  await closed(client);
  expect(gate.connects).toHaveLength(expected.attempts);
  expect(client.records[0]).toMatchObject({ attempts: expected.attempts, flags: [expected.flag] });
});
