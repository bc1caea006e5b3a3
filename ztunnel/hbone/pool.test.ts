import { once } from 'node:events';
import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { type Identity, parseIdentity } from '#certs/identity.ts';
import type { Svid } from '#certs/svid.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { connectHop } from './client.ts';
import { askPatiently, Pool, type PoolTarget } from './pool.ts';
import { createHboneServer, type ServerSession } from './server.ts';
import type { TunnelStream } from './stream.ts';
import { CONNECT, OK, SETTINGS, watch } from './testing.ts';

/** Client, server and pool over real TLS on loopback. */

const SERVER = parseIdentity('spiffe://cluster.local/ns/default/sa/server');
const CLIENT = parseIdentity('spiffe://cluster.local/ns/default/sa/client');

let ca: TemporaryAuthority;
let client: Svid;
let listener: Server;
let port: number;
let sessions: ServerSession[];
let handshakes: number;
let refusals: Error[];
let answer: (session: ServerSession, stream: TunnelStream) => void;
let pools: Pool<PoolTarget>[];

beforeAll(async () => {
  ca = await temporaryAuthority();
  client = await ca.svid(CLIENT);
});
afterAll(async () => {
  await ca[Symbol.asyncDispose]();
});
beforeEach(async () => {
  sessions = [];
  refusals = [];
  const accepted: Socket[] = [];
  pools = [];
  handshakes = 0;
  answer = (session, stream) => session.connection.respond(stream, OK, false);
  const server = createHboneServer(await ca.svid(SERVER), {
    settings: SETTINGS,
    handshakeTimeoutMs: 1_000,
    onSession: (session) => sessions.push(session),
    onSessionClose: () => undefined,
    onRequest: (session, stream) => answer(session, stream),
    onRefused: (error, socket) => {
      refusals.push(error);
      expect(accepted).toContain(socket);
    },
  });
  listener = createServer({ noDelay: true }, (socket: Socket) => {
    handshakes += 1;
    socket.on('error', () => undefined);
    accepted.push(socket);
    server.accept(socket);
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  ({ port } = listener.address() as { port: number });
});
afterEach(() => {
  for (const pool of pools) pool.close();
  for (const { connection } of sessions) connection.close('done');
  listener.close();
});

function target(fields: { readonly svid?: Svid; readonly expected?: readonly Identity[] } = {}): PoolTarget {
  return {
    svid: client,
    expected: [SERVER],
    caller: 'web-1',
    hop: { ip: '127.0.0.1', port },
    ...fields,
  };
}

function openPool(
  options: { readonly maxStreams?: number; readonly idleMs?: number } = {},
): Pool<PoolTarget> {
  const pool = new Pool<PoolTarget>({
    maxStreams: 100,
    idleMs: 600_000,
    ...options,
    connect: ({ svid, expected, hop }, onClose) =>
      connectHop({
        hop,
        svid,
        expected,
        settings: SETTINGS,
        timeoutMs: 2_000,
        dial: (to) => connectTcp({ host: to.ip, port: to.port }),
        onClose,
      }),
  });
  pools.push(pool);
  return pool;
}

const open = (pool: Pool<PoolTarget>, to: PoolTarget = target()): ReturnType<typeof pool.open> =>
  pool.open(to, CONNECT, () => undefined);

test('a client that never begins, or never ends, its handshake is closed when its time is over', async () => {
  const silent = connectTcp({ host: '127.0.0.1', port });
  const half = connectTcp({ host: '127.0.0.1', port });
  half.write(Buffer.from('16030100500100', 'hex'));
  const closed = [silent, half].map((socket) => once(socket.resume(), 'close'));
  await eventually('both are refused', () => refusals.length === 2);
  await Promise.all(closed);
});

test('the server learns who calls, and the callers who come first share one session', async () => {
  const pool = openPool();
  await Promise.all(Array.from({ length: 50 }, () => open(pool)));
  expect(handshakes).toBe(1);
  expect(sessions.map(({ peer }) => peer)).toEqual([CLIENT]);
  expect(sessions[0]?.socket.getProtocol()).toBe('TLSv1.3');
  expect(pool.size).toBe(1);
});

test('who asks patiently gives up a server that never answers, and keeps what is answered', async () => {
  const pool = openPool();
  const { stream } = await askPatiently((onStream) => pool.open(target(), CONNECT, onStream), 5_000);
  answer = () => undefined;
  await expect(askPatiently((onStream) => pool.open(target(), CONNECT, onStream), 20)).rejects.toMatchObject({
    code: 'SESSION_LOST',
  });
  expect(stream.isOver).toBe(false);
});

test('a session takes as many streams as it may; then there is another', async () => {
  const pool = openPool({ maxStreams: 3 });
  const tunnels = await Promise.all(Array.from({ length: 8 }, () => open(pool)));
  expect(handshakes).toBe(3);
  expect(sessions.map(({ connection }) => connection.streamCount).toSorted()).toEqual([2, 3, 3]);
  for (const { stream } of tunnels) stream.abort();
  await open(pool);
  expect(handshakes).toBe(3);
});

test('callers of other identities, other peers and other addresses do not share', async () => {
  const pool = openPool();
  const other = await ca.svid('spiffe://cluster.local/ns/default/sa/other');
  await open(pool, target());
  await open(pool, target({ svid: other }));
  await open(pool, target({ expected: [CLIENT, SERVER] }));
  await open(pool, { ...target(), caller: 'web-2' });
  expect(handshakes).toBe(4);
});

test('a renewed certificate of the same identity goes on with the session that is there', async () => {
  const pool = openPool();
  await open(pool);
  await open(pool, target({ svid: await ca.svid(CLIENT) }));
  expect(handshakes).toBe(1);
});

test('a session that the peer drains is not used again', async () => {
  const pool = openPool();
  const first = await open(pool);
  sessions[0]?.connection.drain();
  await eventually('another session', async () => {
    await open(pool);
    return handshakes === 2;
  });
  const watched = watch(first.stream);
  first.stream.end();
  await watched.until('finish');
});

test('a session that is lost while the peer looks at a request is replaced, once', async () => {
  const pool = openPool();
  await open(pool);
  let requests = 0;
  answer = (session, stream) => {
    requests += 1;
    if (requests === 1) session.socket.destroy();
    else session.connection.respond(stream, OK, false);
  };
  await open(pool);
  expect({ requests, handshakes }).toEqual({ requests: 2, handshakes: 2 });
});

test('a peer that loses every session is given up', async () => {
  const pool = openPool();
  answer = (session) => session.socket.destroy();
  await expect(open(pool)).rejects.toMatchObject({ code: 'SESSION_LOST' });
  expect(handshakes).toBe(2);
  expect(pool.size).toBe(0);
});

test('a stream that is given up before its answer is no tunnel', async () => {
  const pool = openPool();
  answer = () => undefined;
  const opened = pool.open(target(), CONNECT, (stream) => stream.abort());
  await expect(opened).rejects.toMatchObject({ code: 'SESSION_LOST' });
});

test('a session that is not used closes', async () => {
  const pool = openPool({ idleMs: 200 });
  const { stream } = await open(pool);
  stream.abort();
  await eventually('it is closed', () => pool.size === 0);
  await open(pool);
  expect(handshakes).toBe(2);
});

test('the sessions of a caller that is gone close when their streams have ended', async () => {
  const pool = openPool();
  const { stream } = await open(pool);
  pool.release('somebody else');
  pool.release(target().caller);
  await open(pool, { ...target(), caller: 'another' });
  expect(pool.size).toBe(2);
  stream.abort();
  await eventually('it is closed', () => pool.size === 1);
});

test('a peer that is somebody else is refused, with who it is', async () => {
  const opened = open(openPool(), target({ expected: [CLIENT] }));
  await expect(opened).rejects.toMatchObject({
    code: 'TLS_FAILED',
    message: expect.stringContaining('spiffe://cluster.local/ns/default/sa/server'),
  });
});

test('a client of a foreign authority is refused at the server', async () => {
  await using foreign = await temporaryAuthority();
  const opened = open(
    openPool(),
    target({ svid: { ...(await foreign.svid(CLIENT)), rootsPem: client.rootsPem } }),
  );
  await expect(opened).rejects.toMatchObject({ code: 'SESSION_LOST' });
  expect(sessions).toEqual([]);
  expect(refusals.length).toBeGreaterThan(0);
});

test('a port where nobody listens is said to be so', async () => {
  listener.close();
  const opened = open(openPool(), { ...target(), hop: { ip: '127.0.0.1', port: 1 } });
  await expect(opened).rejects.toMatchObject({
    code: 'CONNECT_FAILED',
    message: expect.stringContaining('ECONNREFUSED'),
  });
});

test.each([
  { what: 'garbage', bytes: Buffer.from('GET / HTTP/1.1\r\n\r\n') },
  { what: 'nothing', bytes: Buffer.alloc(0) },
  { what: 'half a handshake', bytes: Buffer.from('160301020001000001fc0303', 'hex') },
])('a client that sends $what is refused, and the next one is served', async ({ bytes }) => {
  const socket = connectTcp({ host: '127.0.0.1', port });
  socket.on('error', () => undefined);
  socket.write(bytes);
  if (bytes.length === 0) socket.end();
  await eventually('it is refused', () => refusals.length > 0, 5_000);
  await open(openPool());
  expect(sessions).toHaveLength(1);
});

test('a client without a certificate is refused', async () => {
  const socket = connectTls({
    host: '127.0.0.1',
    port,
    ca: client.rootsPem,
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
  });
  socket.on('error', () => undefined);
  await eventually('it is refused', () => refusals.length > 0);
  expect(sessions).toEqual([]);
});

test('a client that does not offer h2 is refused', async () => {
  const socket = connectTls({
    host: '127.0.0.1',
    port,
    ca: client.rootsPem,
    key: client.privateKeyPem,
    cert: client.certificateChainPem,
    checkServerIdentity: () => undefined,
  });
  socket.on('error', () => undefined);
  await eventually('it is refused', () => refusals.length > 0);
  expect(refusals[0]?.message).toBe('the client does not speak HTTP/2');
});
