import type { Socket } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import type { CarrierProcess } from '#test/kit/carrier-process.ts';
import { type CartProcess, startCartProcess } from '#test/kit/cart-process.ts';
import { eventually } from '#test/kit/eventually.ts';
import { answeredTunnel, openHostileSession } from '#test/kit/hostile-session.ts';
import { percentile } from '#test/kit/latency.ts';
import type { Connection } from '#ztunnel/hbone/connection.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';

const CART = '127.0.61.2';
const MIB = 1024 * 1024;
/** What docs/operations.md states: the budget, and a quarter of it for the copies of TLS, the kernel's answers and the heap. */
const BUDGET = 256 * MIB;
const MOST_GROWTH = BUDGET * 1.25;

let ca: TemporaryAuthority;
let cart: CartProcess;
let carrier: CarrierProcess;

/** An application that echoes what begins with `e`; does not read of what begins with `s`; and sends without end for a `d`. */
function serve(socket: Socket): void {
  socket.once('data', (first: Buffer) => {
    if (first[0] === 0x73) socket.pause();
    else if (first[0] === 0x64) flood(socket);
    else {
      socket.write(first);
      socket.on('data', (bytes) => socket.write(bytes));
    }
  });
}

function flood(socket: Socket): void {
  const piece = Buffer.alloc(64 * 1024, 'd');
  const send = (): void => {
    while (!socket.destroyed && socket.write(piece));
  };
  socket.on('drain', send);
  send();
}

beforeAll(async () => {
  ca = await temporaryAuthority();
});
afterAll(async () => {
  await ca[Symbol.asyncDispose]();
});

async function open(memoryBytes: number): Promise<AsyncDisposable> {
  cart = await startCartProcess(ca, CART, { serve, memoryBytes });
  carrier = cart.carrier;
  return cart;
}

async function session(): Promise<Connection> {
  const svid = await ca.svid('spiffe://cluster.local/ns/default/sa/web');
  return openHostileSession(cart.hbone, svid);
}

/** Milliseconds that round trips on a stream take, one after the other. */
async function roundTrips(stream: TunnelStream, count: number): Promise<readonly number[]> {
  const times: number[] = [];
  let answered: (() => void) | undefined;
  let failed: (() => void) | undefined;
  stream.start({
    onData: () => answered?.(),
    onEnd: () => undefined,
    onDrain: () => undefined,
    onFinish: () => undefined,
    onAbort: () => failed?.(),
  });
  for (let index = 0; index < count; index++) {
    const startedAt = performance.now();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    answered = resolve;
    failed = () => reject(new Error('the live stream is gone'));
    stream.write(Buffer.from('e'));
    await promise;
    times.push(performance.now() - startedAt);
    // As an application that does something else in between.
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return times;
}

const SESSIONS = 4;

/** Sends all that it may (`s`), and reads nothing. */
function stall(stream: TunnelStream, word: string): void {
  const piece = Buffer.alloc(64 * 1024, word);
  const fill = (): void => {
    while (word === 's' && stream.write(piece));
  };
  stream.start({
    onData: () => stream.pause(),
    onEnd: () => undefined,
    onDrain: fill,
    onFinish: () => undefined,
    onAbort: () => undefined,
  });
  stream.write(Buffer.from(word));
  fill();
}

async function stalledTunnels(sessions: readonly Connection[], word: string): Promise<void> {
  const stalled = await Promise.all(
    sessions.flatMap((each) => Array.from({ length: 50 }, () => answeredTunnel(each, `${CART}:8080`))),
  );
  for (const stream of stalled) stall(stream, word);
}

test.each([
  { side: 'the application does not read', word: 's' },
  { side: 'the peer does not read', word: 'd' },
])('200 tunnels of which $side cost what is stated, and a live one does not feel it', async ({ word }) => {
  await using _all = await open(BUDGET);
  const sessions = await Promise.all(Array.from({ length: SESSIONS }, session));
  const [first] = sessions;
  if (first === undefined) throw new Error('no session');
  const live = await answeredTunnel(first, `${CART}:8080`);
  const alone = roundTrips(await answeredTunnel(first, `${CART}:8080`), 300);
  const before = (await carrier.usage(true)).rss;
  const quiet = percentile(await alone, 99);
  let most = 0;
  await stalledTunnels(sessions, word);
  const busy = roundTrips(live, 1_000);
  let last = -1;
  await eventually(
    'it takes no more',
    async () => {
      const { rss, waitingBytes } = await carrier.usage();
      most = Math.max(most, rss);
      const isSettled = waitingBytes > 0 && waitingBytes === last;
      last = waitingBytes;
      return isSettled;
    },
    60_000,
  );
  const p99 = percentile(await busy, 99);
  const { rss, waitingBytes } = await carrier.usage(true);
  most = Math.max(most, rss);
  process.stdout.write(
    `${word}: ${Math.round((most - before) / MIB)} MiB more at most, ${Math.round(waitingBytes / MIB)} MiB wait; ` +
      `p99 of a live stream ${p99.toFixed(1)} ms, ${quiet.toFixed(1)} ms alone\n`,
  );
  expect(most - before).toBeLessThan(MOST_GROWTH);
  expect(carrier.shed.filter(({ shortage }) => shortage === 'memory')).toEqual([]);
  for (const each of sessions) each.close('done');
  await eventually(
    'all of it is free again',
    async () => (await carrier.usage(true)).waitingBytes < MIB,
    20_000,
  );
});

test('when memory for what waits runs out, those who hold most of it are cut, by name, and a live tunnel goes on', async () => {
  const memoryBytes = 32 * MIB;
  await using _all = await open(memoryBytes);
  const sessions = await Promise.all(Array.from({ length: SESSIONS }, session));
  const [first] = sessions;
  if (first === undefined) throw new Error('no session');
  const live = await answeredTunnel(first, `${CART}:8080`);
  await stalledTunnels(sessions, 's');
  await eventually('some are cut', () => carrier.shed.some(({ shortage }) => shortage === 'memory'), 20_000);
  expect(carrier.shed.find(({ shortage }) => shortage === 'memory')?.error).toMatch(
    /^a connection from 127.* had \d+ bytes waiting for a slow reader$/,
  );
  expect(await roundTrips(live, 50)).toHaveLength(50);
  await eventually(
    'it is within the budget',
    async () => (await carrier.usage()).waitingBytes <= memoryBytes,
    20_000,
  );
  for (const each of sessions) each.close('done');
});
