import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { clientTlsOptions } from '#certs/peer.ts';
import type { Svid } from '#certs/svid.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import type { CarrierProcess } from '#test/kit/carrier-process.ts';
import { type CartProcess, startCartProcess } from '#test/kit/cart-process.ts';
import { eventually } from '#test/kit/eventually.ts';
import { answeredTunnel, openHostileSession } from '#test/kit/hostile-session.ts';
import { frame, many } from '#test/kit/raw-frames.ts';
import { HELLO, openRawClient, type RawClient } from '#test/kit/raw-hbone.ts';
import type { Connection } from './hbone/connection.ts';
import {
  FLAG,
  headersFrames,
  pingFrame,
  resetFrame,
  settingsFrame,
  windowUpdateFrame,
} from './hbone/frames.ts';
import type { TunnelStream } from './hbone/stream.ts';
import { podLimits } from './limits.ts';

/** Clients that mean no good, over TLS, at a ztunnel in a process of its own; and one that does, whose tunnel goes on. */

const CART = '127.0.63.2';
/** Each test's attacker comes from an address of its own: floods are held against it. */
let attackers = 0;
const attackerIp = (): string => `127.0.64.${attackers + 1}`;
const AUTHORITY = `${CART}:8080`;
const MIB = 1024 * 1024;
/** What the heap of a process may grow by while it is busy, whatever comes. */
const MOST_GROWTH = 96 * MIB;

// A process starts, and much comes at once, on a machine that may have much else to do.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let ca: TemporaryAuthority;
let web: Svid;
let cart: CartProcess;
let carrier: CarrierProcess;
let session: Connection;
let echo: Echo;
const mine: Socket[] = [];

interface Echo {
  readonly stream: TunnelStream;
  readonly trip: () => Promise<void>;
}

beforeAll(async () => {
  ca = await temporaryAuthority();
  web = await ca.svid('spiffe://cluster.local/ns/default/sa/web');
  cart = await startCartProcess(ca, CART, {
    settings: {
      limits: { ...podLimits(20_000, 1), sessionsOfPeer: 40, resetsOfPeer: { burst: 3_200, perSecond: 100 } },
    },
  });
  carrier = cart.carrier;
  session = await openHostileSession(cart.hbone, web);
  echo = await openEcho();
});
afterEach(() => {
  attackers += 1;
  for (const socket of mine.splice(0)) socket.destroy();
});
afterAll(async () => {
  session?.close('done');
  await cart?.[Symbol.asyncDispose]();
  await ca?.[Symbol.asyncDispose]();
});

async function openEcho(): Promise<Echo> {
  const stream = await answeredTunnel(session, AUTHORITY);
  let answer = Promise.withResolvers<void>();
  stream.start({
    onData: () => answer.resolve(),
    onEnd: () => undefined,
    onDrain: () => undefined,
    onFinish: () => undefined,
    onAbort: (reason) => answer.reject(new Error(reason)),
  });
  return {
    stream,
    trip: async () => {
      answer = Promise.withResolvers();
      stream.write(Buffer.from('x'));
      await answer.promise;
    },
  };
}

/** The good client's tunnel answers, and the process is still there. */
async function goesOn(): Promise<void> {
  await echo.trip();
  expect(carrier.isAlive()).toBe(true);
}

async function attacker(...bytes: readonly Buffer[]): Promise<RawClient> {
  const client = await openRawClient(cart.hbone, web, attackerIp());
  mine.push(client.socket);
  for (const each of [HELLO, ...bytes]) client.socket.write(each);
  return client;
}

function open(streamId: number, authority: string = AUTHORITY): Buffer {
  const fields = [[':method', 'CONNECT'] as const, [':authority', authority] as const];
  return headersFrames(streamId, fields, { endStream: false, maxFrameSize: 16_384 });
}

async function plainTcp(localAddress: string): Promise<Socket> {
  const socket = connectTcp({ host: CART, port: cart.hbone.port, localAddress });
  socket.on('error', () => undefined);
  mine.push(socket);
  await Promise.race([once(socket, 'connect'), once(socket, 'close')]).catch(() => undefined);
  return socket;
}

test('two thousand half-open handshakes keep out who opens them, and nobody else', async () => {
  const before = carrier.shed.length;
  // As many as may be, from four addresses, and far more.
  await Promise.all(Array.from({ length: 2_000 }, (_, index) => plainTcp(`127.0.63.${100 + (index % 8)}`)));
  await goesOn();
  await eventually('they are counted', () =>
    carrier.shed.slice(before).some(({ shortage }) => /^(peer|pod)-handshakes$/.test(shortage)),
  );
  const newcomer = await attacker(pingFrame(Buffer.from('12345678'), false));
  await eventually('another client is served', () => newcomer.frames.some(({ type }) => type === 6));
  await goesOn();
});

test.each<{ readonly what: string; readonly bytes: Buffer }>([
  { what: 'HTTP/1.1', bytes: Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n') },
  { what: 'HTTP/2 without TLS', bytes: HELLO },
  { what: 'zeros', bytes: Buffer.alloc(100_000) },
  { what: 'a ClientHello of nonsense', bytes: Buffer.from(`16030102000100${'fc0303'.repeat(200)}`, 'hex') },
  {
    what: 'a record as long as can be',
    bytes: Buffer.concat([Buffer.from('160301ffff', 'hex'), Buffer.alloc(70_000, 1)]),
  },
  { what: 'an alert', bytes: Buffer.from('15030300020228', 'hex') },
])('$what instead of TLS is refused', async ({ bytes }) => {
  const socket = await plainTcp(attackerIp());
  socket.resume();
  socket.write(bytes);
  await eventually('it is closed', () => socket.destroyed || socket.readableEnded);
  await goesOn();
});

test.each<{ readonly what: string; readonly options: object }>([
  {
    what: 'TLS 1.2, which alone knows renegotiation',
    options: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' },
  },
  { what: 'ALPN of another protocol', options: { ALPNProtocols: ['http/1.1', 'spdy/3'] } },
  { what: 'no ALPN', options: { ALPNProtocols: [] } },
  { what: 'no certificate', options: { key: undefined, cert: undefined, secureContext: undefined } },
])('a client with $what is refused', async ({ options }) => {
  const expected = [{ trustDomain: 'cluster.local', namespace: 'default', serviceAccount: 'cart' }];
  const { secureContext: _context, ...tls } = clientTlsOptions(web, expected);
  const socket = connectTls({ host: CART, port: cart.hbone.port, ...tls, ...options });
  mine.push(socket);
  const [first] = await Promise.race([
    once(socket, 'error'),
    once(socket, 'close').then(() => ['closed']),
    once(socket.resume(), 'end').then(() => ['ended']),
  ]).catch((error: unknown) => [error]);
  expect(first).toBeDefined();
  await goesOn();
});

test.each([
  { what: 'a name', servername: 'cart.default.svc' },
  { what: 'a name with a NUL', servername: 'a\0b' },
  { what: 'an address in words', servername: '../../etc/passwd%00' },
  { what: 'a name as long as can be', servername: 'a'.repeat(255) },
])('$what as server name changes nothing', async ({ servername }) => {
  const expected = [{ trustDomain: 'cluster.local', namespace: 'default', serviceAccount: 'cart' }];
  const near = connectTcp({ host: CART, port: cart.hbone.port });
  const socket = connectTls({ socket: near, ...clientTlsOptions(web, expected), servername });
  mine.push(socket);
  await Promise.race([once(socket, 'secureConnect'), once(socket, 'close')]).catch(() => undefined);
  await goesOn();
});

/** Far more than are let through here. */
const STREAMS = 12_000;
const everyStream = (make: (streamId: number) => Buffer): Buffer =>
  Buffer.concat(Array.from({ length: STREAMS }, (_, index) => make(2 * index + 1)));

test.each<{ readonly what: string; readonly bytes: readonly Buffer[] }>([
  { what: 'PINGs', bytes: [many(250_000, pingFrame(Buffer.alloc(8), false))] },
  { what: 'answers to PINGs that nobody sent', bytes: [many(250_000, pingFrame(Buffer.alloc(8), true))] },
  { what: 'SETTINGS', bytes: [many(250_000, settingsFrame([[4, 1]]))] },
  { what: 'empty DATA', bytes: [open(1), many(250_000, frame(0, 0, 1))] },
  { what: 'PRIORITY', bytes: [many(250_000, frame(2, 0, 1, '\0\0\0\x035'))] },
  { what: 'frames of no type', bytes: [many(250_000, frame(200, 0xff, 7, 'x'))] },
  { what: 'GOAWAYs', bytes: [many(250_000, frame(7, 0, 0, '\0\0\0\0\0\0\0\0'))] },
  { what: 'CONTINUATION by count', bytes: [frame(1, 0, 1), many(250_000, frame(9, 0, 1))] },
  { what: 'CONTINUATION by bytes', bytes: [frame(1, 0, 1), many(100, frame(9, 0, 1, Buffer.alloc(16_384)))] },
  { what: 'changes of the window', bytes: [many(400_000, windowUpdateFrame(0, 1))] },
  {
    what: 'streams that are reset at once',
    bytes: [everyStream((id) => Buffer.concat([open(id, 'x:1'), resetFrame(id, 'CANCEL')]))],
  },
  {
    what: 'streams that we have to reset, by windows of nothing',
    bytes: [everyStream((id) => Buffer.concat([open(id), windowUpdateFrame(id, 0)]))],
  },
  {
    what: 'streams that we have to reset, by windows too large',
    bytes: [everyStream((id) => Buffer.concat([open(id), windowUpdateFrame(id, 0x7fffffff)]))],
  },
  {
    what: 'streams that we have to reset, by DATA after their end',
    bytes: [
      everyStream((id) => Buffer.concat([open(id), frame(0, FLAG.END_STREAM, id), frame(0, 0, id, 'x')])),
    ],
  },
  {
    what: 'requests that are malformed',
    bytes: [everyStream((id) => frame(1, 4 | FLAG.END_STREAM, id, '\x10\x01A\x01a'))],
  },
  { what: 'requests that are refused', bytes: [everyStream((id) => open(id, '10.9.9.9:1'))] },
])(
  'a flood of $what ends its session, costs no memory, and a tunnel beside it goes on',
  async ({ bytes }) => {
    const { rss } = await carrier.usage(true);
    const client = await attacker(...bytes);
    client.socket.resume();
    await goesOn();
    await eventually('the session is over', client.isClosed, 45_000);
    expect([undefined, 'ENHANCE_YOUR_CALM']).toContain(client.goaway());
    await goesOn();
    await eventually('nothing is left of it', async () => (await carrier.usage()).connections <= 1);
    expect((await carrier.usage(true)).rss - rss).toBeLessThan(MOST_GROWTH);
  },
);

test('a client that opens and resets three thousand tunnels one after the other is not cut', async () => {
  for (let round = 0; round < 30; round++) {
    const streams = await Promise.all(Array.from({ length: 100 }, () => answeredTunnel(session, AUTHORITY)));
    for (const stream of streams) stream.abort();
  }
  await goesOn();
});

test('a client may have so many sessions and no more', async () => {
  const clients: RawClient[] = [];
  for (let index = 0; index < 42; index++) clients.push(await attacker());
  await eventually(
    'two are told to be calm',
    () => clients.filter((client) => client.goaway() === 'ENHANCE_YOUR_CALM').length === 2,
  );
  await eventually('it is counted', () => carrier.shed.some(({ shortage }) => shortage === 'peer-sessions'));
  await goesOn();
});

test('a client opens no more tunnels when its certificate has ended', async () => {
  const brief = await ca.svid('spiffe://cluster.local/ns/default/sa/web', 3_000);
  const client = await openRawClient(cart.hbone, brief, attackerIp());
  mine.push(client.socket);
  client.socket.write(HELLO);
  client.socket.write(open(1));
  await eventually('its tunnel is open', () => client.frames.some(({ type }) => type === 1));
  await eventually('it is asked to go', () => client.goaway() === 'NO_ERROR');
  client.socket.write(frame(0, 0, 1, 'what is there goes on'));
  await eventually('the echo', () => client.frames.some(({ type }) => type === 0));
});

test('bytes before the answer reach the application once it is there, and nobody where it is refused', async () => {
  const client = await attacker(
    open(1),
    frame(0, 0, 1, 'early'),
    open(3, '10.9.9.9:80'),
    frame(0, 0, 3, 'lost'),
  );
  const echoed = await eventually('the echo', () => client.frames.find(({ type }) => type === 0));
  expect({ streamId: echoed.streamId, text: echoed.payload.toString() }).toEqual({
    streamId: 1,
    text: 'early',
  });
  const status = client.frames.filter(({ type }) => type === 1).map(({ streamId }) => streamId);
  expect(status.toSorted()).toEqual([1, 3]);
  expect(client.frames.some(({ type, streamId }) => type === 0 && streamId === 3)).toBe(false);
});

test('a client that dies in the middle of a frame is a reset to the application', async () => {
  const before = new Set(cart.application.connections);
  const half = frame(0, FLAG.END_STREAM, 1, Buffer.alloc(1_000, 'h')).subarray(0, 500);
  const client = await attacker(open(1), half);
  await eventually('half of it came', () => client.frames.some(({ type }) => type === 0));
  const [socket] = [...cart.application.connections].filter((each) => !before.has(each));
  if (socket === undefined) throw new Error('no connection');
  const gone = once(socket, 'error');
  client.socket.destroy();
  expect(((await gone) as [NodeJS.ErrnoException])[0].code).toBe('ECONNRESET');
  await goesOn();
});
