import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { parseIdentity } from '#certs/identity.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { connectHop } from './client.ts';
import { HandshakeGate, type HandshakeLimits } from './handshake-gate.ts';
import { createHboneServer } from './server.ts';
import { SETTINGS } from './testing.ts';

/** Clients at several addresses of loopback, and a gate before what they ask for. */

const A = '127.0.0.2';
const B = '127.0.0.3';
const C = '127.0.0.4';
const LIMITS: HandshakeLimits = { handshakes: 10, handshakesOfPeer: 6 };

let ca: TemporaryAuthority;
let listener: Server;
let port: number;
let gate: HandshakeGate;
let shed: string[];
let left: { count: number };
/** By the port that a client has. */
let accepted: Map<number, Socket>;
let clients: Socket[];
let onAccepted: (socket: Socket) => void;
let onConnection: (socket: Socket) => Promise<unknown>;

beforeAll(async () => {
  ca = await temporaryAuthority();
});
afterAll(async () => {
  await ca[Symbol.asyncDispose]();
});
beforeEach(async () => {
  [shed, left, accepted, clients] = [[], { count: 0 }, new Map(), []];
  onAccepted = () => undefined;
  onConnection = async (socket) => {
    if (await gate.enter(socket)) onAccepted(socket);
  };
  listener = createServer((socket) => {
    socket.on('error', () => undefined);
    accepted.set(socket.remotePort ?? 0, socket);
    void onConnection(socket);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  ({ port } = listener.address() as { port: number });
});
afterEach(() => {
  for (const socket of [...clients, ...accepted.values()]) socket.destroy();
  listener.close();
});

function open(limits: HandshakeLimits = LIMITS, longestWaitMs = 2000): HandshakeGate {
  const ofThis = left;
  gate = new HandshakeGate({
    limits,
    longestWaitMs,
    onShed: (limit, error) => shed.push(`${limit}: ${error}`),
    onLeave: () => {
      ofThis.count += 1;
    },
  });
  return gate;
}

/** A client that has come in, and what its end of the connection says when it is over. */
async function enter(localAddress: string): Promise<{ readonly socket: Socket; readonly end: () => string }> {
  const socket = connect({ host: '127.0.0.1', port, localAddress });
  clients.push(socket);
  let end = '';
  socket.on('error', ({ code }: NodeJS.ErrnoException) => {
    end = code ?? '';
  });
  socket.on('end', () => {
    end ||= 'FIN';
  });
  await eventually('it is accepted or reset', () => accepted.has(socket.localPort ?? 0) || end !== '');
  return { socket, end: () => end };
}

async function enterAll(address: string, count: number): Promise<Awaited<ReturnType<typeof enter>>[]> {
  const entered = [];
  for (let turn = 0; turn < count; turn += 1) entered.push(await enter(address));
  return entered;
}

test('a client may be in so many handshakes; one more of it is reset', async () => {
  open();
  const last = (await enterAll(A, 7)).at(-1);
  await eventually('the reset', () => last?.end() === 'ECONNRESET');
  expect(gate.size).toBe(6);
  expect(shed).toEqual([`peer-handshakes: too many TLS handshakes under way, the last of ${A}`]);
});

test('one that is over, by whatever name and how often it is said, makes room once', async () => {
  open();
  const [first] = await enterAll(A, 6);
  const socket = accepted.get(first?.socket.localPort ?? 0);
  if (socket === undefined) throw new Error('it was not accepted');
  gate.leave(socket);
  gate.leave(socket);
  socket.destroy();
  await once(socket, 'close');
  expect([gate.size, left.count]).toEqual([5, 1]);
  await enterAll(A, 1);
  expect([gate.size, shed]).toEqual([6, []]);
});

test('when all places are taken, a newcomer takes the oldest of who has most', async () => {
  open();
  const ofA = await enterAll(A, 6);
  const ofB = await enterAll(B, 4);
  await enterAll(C, 2);
  await eventually('two resets', () => ofA.filter(({ end }) => end() === 'ECONNRESET').length === 2);
  expect([...ofA.slice(2), ...ofB].map(({ end }) => end())).toEqual(Array(8).fill(''));
  expect(gate.size).toBe(10);
  expect(shed).toEqual(
    Array(2).fill(`pod-handshakes: an unfinished TLS handshake of ${A} made room for one of another client`),
  );
});

test('when all have as many, nobody takes anybody’s place', async () => {
  open({ handshakes: 3, handshakesOfPeer: 3 }, 50);
  for (const address of [A, B, C]) await enterAll(address, 1);
  const late = await enter('127.0.0.5');
  await eventually('the reset', () => late.end() === 'ECONNRESET');
  expect(shed).toEqual(['pod-handshakes: too many TLS handshakes under way, the last of 127.0.0.5']);
  expect(gate.size).toBe(3);
});

test('one that may wait has its turn when a place is free, and is reset when none is in time', async () => {
  open({ handshakes: 2, handshakesOfPeer: 2 }, 300);
  const turns: boolean[] = [];
  onConnection = (socket) => gate.enter(socket).then((mayBegin) => turns.push(mayBegin));
  const [first] = await enterAll(A, 1);
  await enterAll(B, 1);
  const waiting = await enterAll(C, 1);
  const gone = await enterAll('127.0.0.5', 1);
  const late = await enterAll('127.0.0.6', 1);
  // Three wait in a place for two.
  await eventually('the reset', () => late[0]?.end() === 'ECONNRESET');
  expect([turns, gate.size]).toEqual([[true, true, false], 4]);
  gone[0]?.socket.resetAndDestroy();
  await eventually('who is gone waits no longer', () => turns.length === 4);
  first?.socket.destroy();
  await eventually('its turn', () => turns.at(-1) === true);
  expect([waiting[0]?.end(), gate.size]).toEqual(['', 2]);
  const [last] = await enterAll('127.0.0.7', 1);
  await eventually('the wait is over', () => last?.end() === 'ECONNRESET');
  expect(turns).toEqual([true, true, false, false, true, false]);
  expect(shed).toEqual(
    ['127.0.0.6', '127.0.0.7'].map(
      (peer) => `pod-handshakes: too many TLS handshakes under way, the last of ${peer}`,
    ),
  );
  expect(gate.size).toBe(2);
});

test('a handshake that is under way is reset for a newcomer, and a session has no place any more', async () => {
  open({ handshakes: 2, handshakesOfPeer: 2 });
  const [SERVER, CLIENT] = ['server', 'client'].map((name) =>
    parseIdentity(`spiffe://cluster.local/ns/default/sa/${name}`),
  );
  if (SERVER === undefined || CLIENT === undefined) throw new Error('no identities');
  const refused: Socket[] = [];
  const hbone = createHboneServer(await ca.svid(SERVER), {
    settings: SETTINGS,
    handshakeTimeoutMs: 10_000,
    onSession: (session) => gate.leave(session.accepted),
    onSessionClose: () => undefined,
    onRequest: () => undefined,
    onRefused: (_error, socket) => refused.push(socket),
  });
  onAccepted = (socket) => hbone.accept(socket);
  const [first] = await enterAll(A, 2);
  const session = await connectHop({
    hop: { ip: '127.0.0.1', port },
    svid: await ca.svid(CLIENT),
    expected: [SERVER],
    dial: (to) => connect({ host: to.ip, port: to.port, localAddress: B }),
    settings: SETTINGS,
    timeoutMs: 5_000,
    onClose: () => undefined,
  });
  await eventually('the reset', () => first?.end() === 'ECONNRESET');
  await eventually('the session has left', () => gate.size === 1);
  const stranger = await enter(C);
  await eventually('it is in', () => gate.size === 2);
  stranger.socket.end('GET / HTTP/1.1\r\n\r\n');
  await eventually('its place is free', () => gate.size === 1);
  expect(refused.map((socket) => [...accepted.values()].indexOf(socket))).toEqual([0, 3]);
  session.close('done');
});
