import { createServer } from 'node:http';
import { afterEach, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { type LoneWaypoint, openLoneWaypoint } from '#test/kit/lone-waypoint.ts';
import type { TunnelDuplex } from '#waypoint/tunnel-duplex.ts';
import type { Connection } from '#ztunnel/hbone/connection.ts';
import {
  FLAG,
  FRAME,
  headersFrames,
  PREFACE,
  pingFrame,
  resetFrame,
  settingsFrame,
} from '#ztunnel/hbone/frames.ts';

/**
 * What callers who do not read, whom nobody reads, or who mean harm may have a waypoint hold, and that another caller's requests do
 * not feel it. The waypoint is a process of its own, so that its memory is seen.
 */

const MIB = 1024 * 1024;
const PIECE = Buffer.alloc(64 * 1024);

let waypoint: LoneWaypoint | undefined;

async function open(memory?: string): Promise<LoneWaypoint> {
  const application = createServer((request, response) => {
    if (request.url === '/small') response.end('small');
    else if (request.url === '/endless') {
      const more = (): void => {
        while (response.write(PIECE));
      };
      response.on('drain', more);
      more();
    }
    // All else is never answered, and its body never read.
  });
  waypoint = await openLoneWaypoint(application, memory);
  return waypoint;
}
afterEach(async () => {
  await waypoint?.[Symbol.asyncDispose]();
  waypoint = undefined;
});

/** Small requests, one after the other on a connection; how long each took, in ms, sorted. */
async function small(target: LoneWaypoint, count: number): Promise<readonly number[]> {
  const socket = await target.tunnel('live');
  const took: number[] = [];
  for (let left = count; left > 0; left -= 1) {
    const start = performance.now();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onClose = (): void => reject(new Error('the live connection is gone'));
    socket.once('data', resolve);
    socket.once('close', onClose);
    socket.write('GET /small HTTP/1.1\r\nhost: ledger\r\n\r\n');
    await promise;
    socket.off('close', onClose);
    took.push(performance.now() - start);
  }
  socket.destroy();
  return took.sort((one, other) => one - other);
}

function p99(sorted: readonly number[]): number {
  return sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN;
}

test('200 readers who stall cost what is stated, lose nothing, and a live client is answered', async () => {
  const target = await open();
  await small(target, 300);
  const { residentKib } = await target.figures();
  const quiet = await small(target, 500);
  const sockets: TunnelDuplex[] = [];
  const sessions = await Promise.all([1, 2, 3, 4].map((number) => target.session(`stalled-${number}`)));
  for (let at = 0; at < 200; at += 1) {
    const socket = await target.tunnel('', sessions[at % sessions.length]);
    socket.write('GET /endless HTTP/1.1\r\nhost: ledger\r\n\r\n');
    sockets.push(socket);
  }
  await eventually('they hold all they can', async () => {
    const { heldBytes } = await target.figures();
    await small(target, 20);
    return heldBytes > 100 * MIB && Math.abs((await target.figures()).heldBytes - heldBytes) < MIB;
  });
  const loud = await small(target, 500);
  const figures = await target.figures();
  process.stdout.write(
    `200 stalled readers: ${Math.round(figures.heldBytes / MIB)} MiB held, resident memory grew by ` +
      `${Math.round((figures.peakKib - residentKib) / 1024)} MiB; p99 ${p99(quiet).toFixed(1)} ms before, ${p99(loud).toFixed(1)} ms then\n`,
  );
  expect(figures.shedCount).toBe(0);
  expect(figures.heldBytes).toBeLessThan(240 * MIB);
  expect((figures.peakKib - residentKib) / 1024).toBeLessThan(384);
  expect(sockets.every(({ destroyed }) => !destroyed)).toBe(true);
}, 240_000);

/** Requests of HTTP/2 that are sent by hand. */
const GET = (path: string): readonly (readonly [string, string])[] => [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':authority', 'ledger'],
  [':path', path],
];
const POST = [[':method', 'POST'], ...GET('/stuck').slice(1)] as const;
const HELLO = Buffer.concat([PREFACE, settingsFrame([])]);
const request = (stream: number, fields: Parameters<typeof headersFrames>[1], endStream = true): Buffer =>
  headersFrames(stream, fields, { endStream, maxFrameSize: 16_384 });
const ids = (count: number): number[] => Array.from({ length: count }, (_, at) => 2 * at + 1);

function data(stream: number, bytes: number): Buffer {
  const frame = Buffer.alloc(9 + bytes);
  frame.writeUIntBE(bytes, 0, 3);
  frame[3] = FRAME.DATA;
  frame.writeUInt32BE(stream, 5);
  return frame;
}

/** A header of 4000 bytes, and each time after that one byte that stands for it. */
function bomb(stream: number, isFirst: boolean): Buffer {
  const literal = Buffer.concat([
    Buffer.from([0x40, 1, 0x61, 0x7f, 4000 - 127 - 128 * 30 + 128, 29]),
    Buffer.alloc(4000, 0x62),
  ]);
  const plain = headersFrames(stream, GET('/stuck'), { endStream: true, maxFrameSize: 16_384 }).subarray(9);
  const block = Buffer.concat([plain, isFirst ? literal : Buffer.alloc(0), Buffer.alloc(13, 0xbe)]);
  const head = Buffer.alloc(9);
  head.writeUIntBE(block.length, 0, 3);
  head[3] = FRAME.HEADERS;
  head[4] = FLAG.END_HEADERS | FLAG.END_STREAM;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, block]);
}

/** Each does its worst on so many tunnels, in sessions of its own, and reads nothing of what comes back but where it says so. */
const ATTACKS: readonly {
  readonly what: string;
  readonly tunnels: number;
  readonly isRead?: boolean;
  readonly bytes: () => Iterable<Buffer | string>;
}[] = [
  {
    what: 'uploads that nobody reads',
    tunnels: 4,
    isRead: true,
    *bytes() {
      yield HELLO;
      for (const id of ids(200))
        yield Buffer.concat([request(id, POST, false), data(id, 16_000), data(id, 16_000)]);
      for (const id of ids(200)) for (let left = 13; left > 0; left -= 1) yield data(id, 16_000);
    },
  },
  {
    what: 'uploads in frames of one byte',
    tunnels: 4,
    isRead: true,
    *bytes() {
      yield HELLO;
      for (const id of ids(50)) {
        yield request(id, POST, false);
        for (let left = 20; left > 0; left -= 1)
          yield Buffer.concat(Array.from({ length: 500 }, () => data(id, 1)));
      }
    },
  },
  {
    what: 'headers that are small only when compressed',
    tunnels: 4,
    isRead: true,
    *bytes() {
      yield HELLO;
      for (const id of ids(500)) yield bomb(id, id === 1);
    },
  },
  {
    what: 'answers without a window for them',
    tunnels: 40,
    *bytes() {
      yield Buffer.concat([PREFACE, settingsFrame([[4, 0]])]);
      for (const id of ids(20)) yield request(id, GET('/endless'));
    },
  },
  {
    what: 'requests that are reset at once',
    tunnels: 10,
    isRead: true,
    *bytes() {
      yield HELLO;
      for (const id of ids(2_000))
        yield Buffer.concat([request(id, GET('/stuck')), resetFrame(id, 'CANCEL')]);
    },
  },
  {
    what: 'PINGs and SETTINGS',
    tunnels: 10,
    *bytes() {
      yield HELLO;
      const flood = Buffer.concat([pingFrame(Buffer.alloc(8), false), settingsFrame([])]);
      for (let left = 200; left > 0; left -= 1) yield Buffer.alloc(flood.length * 200, flood);
    },
  },
  {
    what: 'heads of HTTP/1.1 that never end',
    tunnels: 800,
    *bytes() {
      yield `GET / HTTP/1.1\r\nhost: ledger\r\n${`x: ${'a'.repeat(5_000)}\r\n`.repeat(11)}`;
    },
  },
  {
    what: '10,000 requests one after the other',
    tunnels: 1,
    isRead: true,
    *bytes() {
      yield HELLO;
      for (const id of ids(10_000)) yield request(id, GET('/small'));
    },
  },
];

test.each(ATTACKS)(
  '$what cost no more than the budget, and a live client is answered',
  async (attack) => {
    const target = await open('64Mi');
    await small(target, 300);
    const { residentKib } = await target.figures();
    const quiet = await small(target, 300);
    const sessions: Connection[] = [];
    const isOver = run(target, attack, sessions);
    const loud: number[] = [];
    let isDone = false;
    void isOver.then(() => {
      isDone = true;
    });
    while (!isDone || loud.length < 200) loud.push(...(await small(target, 50)));
    await isOver;
    const figures = await target.figures();
    for (const session of sessions) session.close('the attack is over');
    loud.sort((one, other) => one - other);
    process.stdout.write(
      `${attack.what}: resident memory grew by ${Math.round((figures.peakKib - residentKib) / 1024)} MiB, ${figures.shedCount} shed, ` +
        `p99 ${p99(quiet).toFixed(1)} ms before, ${p99(loud).toFixed(1)} ms then\n`,
    );
    expect(figures.heldBytes).toBeLessThan(64 * MIB);
    // The budget, and what the collector of garbage leaves for later.
    expect((figures.peakKib - residentKib) / 1024).toBeLessThan(64 + 256);
    await eventually('all is given back', async () => (await target.figures()).heldBytes < 2 * MIB);
  },
  240_000,
);

async function run(
  target: LoneWaypoint,
  { tunnels, isRead, bytes }: (typeof ATTACKS)[number],
  sessions: Connection[],
): Promise<void> {
  const perSession = 100;
  const sockets: Promise<void>[] = [];
  for (let at = 0; at < tunnels; at += 1) {
    if (at % perSession === 0) sessions.push(await target.session('hostile'));
    const session = sessions.at(-1);
    const socket = await target.tunnel('hostile', session).catch(() => undefined);
    if (socket === undefined) continue; // its session was shed
    if (isRead === true) socket.resume();
    sockets.push(send(socket, bytes()));
  }
  await Promise.all(sockets);
}

/** Sends as fast as it is taken, and gives up when nothing is for a while. */
async function send(socket: TunnelDuplex, pieces: Iterable<Buffer | string>): Promise<void> {
  for (const piece of pieces) {
    if (socket.destroyed) return;
    if (socket.write(piece)) continue;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => resolve(false), 2_000);
    const goOn = (): void => resolve(true);
    socket.once('drain', goOn).once('close', goOn);
    const goesOn = await promise;
    clearTimeout(timer);
    socket.off('drain', goOn).off('close', goOn);
    if (!goesOn) return;
  }
}
