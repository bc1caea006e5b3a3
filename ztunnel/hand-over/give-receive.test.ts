import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { attachSocket } from '../hbone/attach-socket.ts';
import { SocketLeg } from '../hbone/socket-leg.ts';
import { socketPair } from '../hbone/testing.ts';
import { type HttpListener, listenHttp } from '../http-listener.ts';
import type { CarriedConnection } from './carried.ts';
import { duplicate } from './descriptors.ts';
import { Giver } from './give.ts';
import { receiveConnections } from './receive.ts';
import { handOverUpgrade } from './routes.ts';

const logger = pino({ level: 'silent' });
const ANSWER_MS = 300;
const PROGRAM = join(import.meta.dirname, '../../test/kit/programs/retiring.ts');

let folder: string;
let giver: Giver;
let listener: HttpListener;
let arrived: CarriedConnection[];
let outcomes: string[];
let ends: string[];
let receivers: Disposable[];
let sockets: Socket[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'give-'));
  giver = new Giver({ logger, answerMs: ANSWER_MS });
  [arrived, outcomes, ends, receivers, sockets] = [[], [], [], [], []];
  const upgrade = handOverUpgrade((socket) => giver.accept(socket));
  listener = await listenHttp({ path: join(folder, 'orders') }, [], () => undefined, [upgrade]);
});
afterEach(async () => {
  for (const receiver of receivers) receiver[Symbol.dispose]();
  for (const socket of sockets) socket.destroy();
  await listener[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

async function receive(whyNot: () => string | undefined = () => undefined): Promise<Disposable> {
  return receiveFrom(join(folder, 'orders'), whyNot);
}

async function receiveFrom(
  path: string,
  whyNot: () => string | undefined = () => undefined,
): Promise<Disposable> {
  const receiver = await receiveConnections(path, {
    logger,
    whyNot,
    onConnection: (connection) => arrived.push(connection),
    onOutcome: (of, outcome) => outcomes.push(`${of} ${outcome}`),
    onEnd: () => ends.push('over'),
  });
  receivers.push(receiver);
  return receiver;
}

/** An application, and a connection of its socket's other end, let go of. */
async function carried(id = 'a'.repeat(32)): Promise<{ application: Socket; connection: CarriedConnection }> {
  const { near, far } = await socketPair();
  sockets.push(near, far);
  near.on('error', () => undefined);
  const leg = new SocketLeg(far);
  const ignore = (): void => undefined;
  leg.start({ onData: ignore, onEnd: ignore, onDrain: ignore, onFinish: ignore, onAbort: ignore });
  const { descriptor } = leg;
  if (typeof descriptor !== 'number') throw new TypeError('the socket has closed');
  leg.write(Buffer.from('written before'));
  const detached = leg.detach(duplicate(descriptor));
  return { application: near, connection: connectionOf(id, detached) };
}

function connectionOf(id: string, ...detached: CarriedConnection['sockets']): CarriedConnection {
  const peer = { address: '10.0.0.1:1' };
  return {
    id,
    kind: 'passthrough',
    podUid: 'pod',
    record: {
      facts: { direction: 'outbound', source: peer, destination: peer, security: 'unknown' },
      info: { podUid: 'pod', direction: 'outbound', source: '', destination: '', protocol: 'TCP' },
      openedAtMs: 1_700_000_000_000,
      told: { received: 5, sent: 7 },
    },
    sockets: detached,
  };
}

/** Whether the connection lives: what is written into the other end arrives. */
async function expectAlive(application: Socket, { sockets: [socket] }: CarriedConnection): Promise<void> {
  if (socket === undefined) throw new TypeError('there is no socket');
  const leg = attachSocket(socket);
  leg.start({
    onData: (bytes) => leg.write(bytes),
    onEnd: () => leg.end(),
    onDrain: () => undefined,
    onFinish: () => undefined,
    onAbort: () => undefined,
  });
  let seen = '';
  application.on('data', (bytes) => {
    seen += bytes;
  });
  application.write(', echoed after');
  await eventually('all has come', () => seen === 'written before, echoed after');
  application.end();
  await once(application, 'end');
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

test('a connection that is taken lives on at the successor, and is known there by what was said of it', async () => {
  await receive();
  const { application, connection } = await carried();
  expect(await giver.offer(connection)).toBe('taken');
  const taken = await eventually('it has arrived', () => arrived[0]);
  expect(ends).toEqual([]);
  giver.close();
  await eventually('the last word', () => ends.length === 1);
  expect({ ...taken, sockets: [] }).toEqual({ ...connection, sockets: [] });
  expect([...giver.counts]).toEqual([['passthrough handed_over', 1]]);
  await expectAlive(application, taken);
});

test.for([
  { when: 'the successor refuses it', whyNot: () => 'not now', outcome: 'drained_refused' },
  {
    when: 'the successor breaks off',
    whyNot: () => {
      throw new TypeError('it fell over');
    },
    outcome: 'drained_successor_lost',
  },
])('a connection is kept, and lives, when $when', async ({ whyNot, outcome }) => {
  await receive(whyNot);
  const { application, connection } = await carried();
  expect(await giver.offer(connection)).toBe('kept');
  expect([...giver.counts]).toEqual([[`passthrough ${outcome}`, 1]]);
  expect(arrived).toEqual([]);
  await expectAlive(application, connection);
});

test('without a successor a connection is kept', async () => {
  const { application, connection } = await carried();
  expect(await giver.offer(connection)).toBe('kept');
  await expectAlive(application, connection);
});

test('what is not answered in time is withdrawn: the successor lets go of it, and it lives here', async () => {
  // A successor that speaks the protocol and takes, without ever saying so.
  const said: string[] = [];
  const silent = new Giver({ logger, answerMs: ANSWER_MS });
  const pair = await socketPair();
  sockets.push(pair.near, pair.far);
  silent.accept(pair.far);
  pair.near.on('data', (bytes) => said.push(`${bytes}`));
  const { application, connection } = await carried();
  expect(await silent.offer(connection)).toBe('kept');
  await eventually('it is withdrawn', () => said.join('').includes('"type":"withdraw"'));
  expect([...silent.counts]).toEqual([['passthrough drained_no_answer', 1]]);
  await expectAlive(application, connection);
});

test('what a retiring process keeps of its own accord is told, and descriptors do not pile up', async () => {
  await receive();
  giver.count('same-node', 'drained_kernel_splice');
  await eventually('it is told', () => outcomes.includes('same-node drained_kernel_splice'));
  const before = openDescriptors();
  for (let round = 0; round < 20; round++) {
    const { application, connection } = await carried(`${round}`.padStart(32, '0'));
    expect(await giver.offer(connection)).toBe('taken');
    const taken = await eventually('it has arrived', () => arrived[round]);
    await expectAlive(application, taken);
  }
  await eventually('all is closed', () => openDescriptors() <= before);
});

test.for([
  { what: 'another socket than was said', cookies: ['1'], reason: 'is not the socket that it was' },
  { what: 'a descriptor that is not open', cookies: ['1'], fd: 1_000_000, reason: 'EBADF' },
])('$what is refused, and nothing is left open', async ({ cookies, fd, reason }) => {
  const { near, far } = await socketPair();
  sockets.push(near, far);
  const answers: string[] = [];
  await listener[Symbol.asyncDispose]();
  const lying = handOverUpgrade((socket) => {
    const { connection } = offer;
    socket.on('data', (bytes: Buffer) => answers.push(`${bytes}`));
    socket.on('end', () => socket.end());
    for (const line of [
      { type: 'hello', pid: process.pid },
      { type: 'offer', number: 1, cookies, connection },
    ])
      socket.write(`${JSON.stringify(line)}\n`);
  });
  const known = (near as Socket & { readonly _handle: { readonly fd: number } })._handle.fd;
  const socket = { fd: fd ?? known, hasEnded: false, hasFinished: false, unsent: '' };
  const offer = { connection: { ...connectionOf('b'.repeat(32)), sockets: [socket] } };
  listener = await listenHttp({ path: join(folder, 'orders') }, [], () => undefined, [lying]);
  const before = openDescriptors();
  const receiver = await receive();
  await eventually('it is refused', () => answers.join('').includes(reason));
  expect(arrived).toEqual([]);
  receiver[Symbol.dispose]();
  await eventually('all is closed', () => openDescriptors() <= before);
});

test('a process that knows no hand-over of connections is told apart', async () => {
  await listener[Symbol.asyncDispose]();
  listener = await listenHttp({ path: join(folder, 'orders') }, [], () => undefined);
  await expect(receive()).rejects.toThrow('it answered 404');
});

/** A process that gives up a connection, and dies when it is taken. */
async function dyingGiver(
  ...args: string[]
): Promise<{ readonly application: Socket; readonly failures: readonly string[] }> {
  const port = 20_000 + (process.pid % 10_000);
  const path = join(folder, 'retiring');
  const child = spawn(process.execPath, [PROGRAM, `${port}`, path, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const output = child.stdout.setEncoding('utf8');
  let printed = '';
  output.on('data', (text) => {
    printed += text;
  });
  await eventually('it is ready', () => printed.includes('ready'));
  const application = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const failures: string[] = [];
  application.on('error', (error: Error & { readonly code?: string }) => failures.push(`${error.code}`));
  sockets.push(application);
  await eventually('it has the connection', () => printed.includes('detached'));
  const ended = once(child, 'exit');
  await receiveFrom(path);
  expect((await ended)[1]).toBe('SIGKILL');
  return { application, failures };
}

test('what was taken lives on when the retiring process dies before it has said the last word', async () => {
  const { application } = await dyingGiver();
  const taken = await eventually('it has arrived', () => arrived[0]);
  await expectAlive(application, taken);
});

test('what the retiring process went on with before it died is not taken up where it had stopped, but reset', async () => {
  const { failures } = await dyingGiver('keep');
  await eventually('a reset', () => failures.length > 0);
  expect([failures, arrived]).toEqual([['ECONNRESET'], []]);
});

test('what a successor takes with it that dies before it hears the last word is reset', async () => {
  const { near, far } = await socketPair();
  sockets.push(near, far);
  giver.accept(far);
  const { application, connection } = await carried();
  const failed = once(application, 'error');
  near.end('{"type":"taken","number":1}\n');
  expect(await giver.offer(connection)).toBe('taken');
  expect(await failed).toMatchObject([{ code: 'ECONNRESET' }]);
});

test('an answer that comes late is not taken for that of the next offer', async () => {
  const { near, far } = await socketPair();
  sockets.push(near, far);
  giver.accept(far);
  const [first, second] = [await carried(), await carried()];
  expect(await giver.offer(first.connection)).toBe('kept');
  near.write('{"type":"taken","number":1}\n{"type":"refused","number":2,"reason":"not now"}\n');
  expect(await giver.offer(second.connection)).toBe('kept');
  await expectAlive(first.application, first.connection);
  await expectAlive(second.application, second.connection);
});
