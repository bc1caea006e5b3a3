import { Socket } from 'node:net';
import fc from 'fast-check';
import { afterEach, expect, test, vi } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { frame, many, type RawFrame, readFrames } from '#test/kit/raw-frames.ts';
import { Connection, type ConnectionSettings } from './connection.ts';
import { ERROR_CODES, type ErrorCode, nameOfCode } from './error.ts';
import { FrameReader } from './frame-reader.ts';
import {
  FLAG,
  FRAME,
  headersFrames,
  PREFACE,
  pingFrame,
  resetFrame,
  settingsFrame,
  windowUpdateFrame,
} from './frames.ts';
import { encodeHeaders } from './hpack.ts';
import type { TunnelStream } from './stream.ts';
import { CONNECT, OK, SETTINGS, socketPair, watch } from './testing.ts';

/** A client that sends frames by hand, at our server. */

interface Attack {
  readonly socket: Socket;
  readonly server: Connection;
  readonly requests: TunnelStream[];
  readonly frames: readonly RawFrame[];
  readonly closed: string[];
}

const sockets: Socket[] = [];
afterEach(() => {
  vi.restoreAllMocks();
  for (const socket of sockets.splice(0)) socket.destroy();
});

async function attack(...bytes: readonly Buffer[]): Promise<Attack> {
  return attackWith(SETTINGS, ...bytes);
}

async function attackWith(settings: ConnectionSettings, ...bytes: readonly Buffer[]): Promise<Attack> {
  const { near, far } = await socketPair();
  sockets.push(near, far);
  const requests: TunnelStream[] = [];
  const closed: string[] = [];
  const server: Connection = new Connection(far, {
    settings,
    onRequest: (stream) => {
      requests.push(stream);
      server.respond(stream, OK, false);
    },
    onClose: (reason) => closed.push(reason),
  });
  near.on('error', () => undefined);
  const frames = readFrames(near);
  for (const each of bytes) near.write(each);
  return { socket: near, server, requests, frames, closed };
}

const hello = Buffer.concat([PREFACE, settingsFrame([])]);
const open = (streamId: number): Buffer =>
  headersFrames(streamId, CONNECT, { endStream: false, maxFrameSize: 16_384 });

async function goawayCode({ frames, closed }: Attack): Promise<string> {
  await eventually('the connection is closed', () => closed.length > 0);
  const goaway = await eventually('a GOAWAY', () => frames.find(({ type }) => type === FRAME.GOAWAY));
  return nameOfCode(goaway.payload.readUInt32BE(4));
}

const IMPATIENT: ConnectionSettings = { ...SETTINGS, pingIntervalMs: 50, pingTimeoutMs: 300 };

test.each([
  { what: 'is silent', answer: undefined },
  { what: 'answers what it was not asked', answer: pingFrame(Buffer.from('is alive'), true) },
])('a peer that $what is taken for dead', async ({ answer }) => {
  const { closed, socket } = await attackWith(IMPATIENT, hello, open(1));
  const timer = answer && setInterval(() => socket.write(answer), 20);
  await eventually('the connection is over', () => closed.length > 0);
  clearInterval(timer);
  expect(closed).toEqual(['no answer to PING']);
});

test('a peer that answers lives', async () => {
  const { closed, socket, frames } = await attackWith(
    { ...IMPATIENT, pingTimeoutMs: 20_000 },
    hello,
    open(1),
  );
  let answered = 0;
  await eventually('five have been answered', () => {
    const pings = frames.filter(({ type, flags }) => type === FRAME.PING && flags === 0);
    for (const { payload } of pings.slice(answered)) socket.write(pingFrame(payload, true));
    answered = pings.length;
    return answered >= 5;
  });
  expect(closed).toEqual([]);
});

test('a drain does not wait for a peer that answers nothing', async () => {
  const { server, closed } = await attack(hello);
  server.drain();
  await eventually('the connection is over', () => closed.length > 0, 3_000);
  expect(closed).toEqual(['drained']);
});

test('a drain waits for what is in flight, also when the peer does not answer its PING', async () => {
  const { socket, server, requests, frames, closed } = await attack(hello, open(1));
  await eventually('the request is there', () => requests.length > 0);
  server.drain();
  const goaways = (): number => frames.filter(({ type }) => type === FRAME.GOAWAY).length;
  await eventually('both GOAWAYs', () => goaways() === 2, 3_000);
  expect(closed).toEqual([]);
  socket.write(resetFrame(1, 'CANCEL'));
  await eventually('the connection is over', () => closed.length > 0);
});

test.each<{ readonly what: string; readonly bytes: readonly Buffer[]; readonly code: ErrorCode }>([
  { what: 'HTTP/1.1', bytes: [Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')], code: 'PROTOCOL_ERROR' },
  {
    what: 'many PINGs',
    bytes: [hello, many(3_000, pingFrame(Buffer.alloc(8), false))],
    code: 'ENHANCE_YOUR_CALM',
  },
  { what: 'many SETTINGS', bytes: [hello, many(3_000, settingsFrame([]))], code: 'ENHANCE_YOUR_CALM' },
  { what: 'many PRIORITY', bytes: [hello, many(3_000, frame(2, 0, 1, '12345'))], code: 'ENHANCE_YOUR_CALM' },
  {
    what: 'many frames of no type',
    bytes: [hello, many(3_000, frame(77, 0, 0, 'x'))],
    code: 'ENHANCE_YOUR_CALM',
  },
  {
    what: 'much empty DATA',
    bytes: [hello, open(1), many(3_000, frame(0, 0, 1))],
    code: 'ENHANCE_YOUR_CALM',
  },
  {
    what: 'a header block without an end',
    bytes: [hello, frame(1, 0, 1, 'x'), many(5, frame(9, 0, 1, 'x'.repeat(16_384)))],
    code: 'ENHANCE_YOUR_CALM',
  },
  {
    what: 'a header block of crumbs',
    bytes: [hello, frame(1, 0, 1, ''), many(3_000, frame(9, 0, 1, ''))],
    code: 'ENHANCE_YOUR_CALM',
  },
  {
    what: 'HEADERS as large as a frame',
    bytes: [hello, frame(1, 4, 1, 'x'.repeat(70_000))],
    code: 'ENHANCE_YOUR_CALM',
  },
  {
    what: 'a frame too large',
    bytes: [hello, Buffer.from('20000000000000000100', 'hex')],
    code: 'FRAME_SIZE_ERROR',
  },
  {
    what: 'DATA on a stream that was never opened',
    bytes: [hello, frame(0, 0, 1, 'x')],
    code: 'PROTOCOL_ERROR',
  },
  { what: 'RST_STREAM likewise', bytes: [hello, resetFrame(7, 'CANCEL')], code: 'PROTOCOL_ERROR' },
  { what: 'an even stream', bytes: [hello, open(2)], code: 'PROTOCOL_ERROR' },
  { what: 'PUSH_PROMISE', bytes: [hello, open(1), frame(5, 4, 1, '12345')], code: 'PROTOCOL_ERROR' },
  {
    what: 'DATA inside a header block',
    bytes: [hello, frame(1, 0, 1), frame(0, 0, 1, 'x')],
    code: 'PROTOCOL_ERROR',
  },
  { what: 'CONTINUATION of nothing', bytes: [hello, frame(9, 4, 1, 'x')], code: 'PROTOCOL_ERROR' },
  {
    what: 'a header block that is none',
    bytes: [hello, frame(1, 4, 1, Buffer.from('80', 'hex'))],
    code: 'COMPRESSION_ERROR',
  },
  {
    what: 'padding longer than the frame',
    bytes: [hello, open(1), frame(0, FLAG.PADDED, 1, '\x09x')],
    code: 'PROTOCOL_ERROR',
  },
  {
    what: 'a window beyond all bounds',
    bytes: [hello, windowUpdateFrame(0, 0x7fffffff)],
    code: 'FLOW_CONTROL_ERROR',
  },
  { what: 'a window update of nothing', bytes: [hello, windowUpdateFrame(0, 0)], code: 'PROTOCOL_ERROR' },
  { what: 'SETTINGS of half a setting', bytes: [hello, frame(4, 0, 0, 'abc')], code: 'FRAME_SIZE_ERROR' },
  {
    what: 'an initial window too large',
    bytes: [hello, settingsFrame([[4, 0x80000000]])],
    code: 'FLOW_CONTROL_ERROR',
  },
  { what: 'a frame size too small', bytes: [hello, settingsFrame([[5, 100]])], code: 'PROTOCOL_ERROR' },
  { what: 'PING of nine bytes', bytes: [hello, frame(6, 0, 0, '123456789')], code: 'FRAME_SIZE_ERROR' },
])('a connection with $what is closed with $code', async ({ bytes, code }) => {
  const attacked = await attack(...bytes);
  expect(await goawayCode(attacked)).toBe(code);
});

test('HEADERS and RST_STREAM in quick succession are stopped, and far fewer are let through than were sent', async () => {
  // However long this machine takes for them, they come at once.
  vi.spyOn(performance, 'now').mockReturnValue(performance.now());
  const rounds = Array.from({ length: 30_000 }, (_, index) =>
    Buffer.concat([open(2 * index + 1), resetFrame(2 * index + 1, 'CANCEL')]),
  );
  const attacked = await attack(hello, Buffer.concat(rounds));
  expect(await goawayCode(attacked)).toBe('ENHANCE_YOUR_CALM');
  expect(attacked.requests.length).toBeLessThan(25_000);
});

test('a thousand streams that end with a reset disturb nobody', async () => {
  const rounds = Array.from({ length: 1_000 }, (_, index) =>
    Buffer.concat([open(2 * index + 1), resetFrame(2 * index + 1, 'CANCEL')]),
  );
  const { requests, server, closed } = await attack(hello, Buffer.concat(rounds), open(2_001));
  await eventually('the last request', () => requests.length === 1_001);
  expect(server.streamCount).toBe(1);
  expect(closed).toEqual([]);
});

test('stream 201 is refused as not looked at; the others go on', async () => {
  const streams = Array.from({ length: 201 }, (_, index) => open(2 * index + 1));
  const { frames, requests, closed } = await attack(hello, ...streams);
  const refused = await eventually('a refusal', () => frames.find(({ type }) => type === FRAME.RST_STREAM));
  expect({ streamId: refused.streamId, code: refused.payload.readUInt32BE(0) }).toEqual({
    streamId: 401,
    code: ERROR_CODES.REFUSED_STREAM,
  });
  expect(requests).toHaveLength(200);
  expect(closed).toEqual([]);
});

test('a peer that overruns the window of one stream loses that stream', async () => {
  const piece = frame(0, 0, 1, Buffer.alloc(1_048_576));
  const { frames, server, closed } = await attack(hello, open(1), open(3), many(5, piece));
  const reset = await eventually('a reset', () => frames.find(({ type }) => type === FRAME.RST_STREAM));
  expect({ streamId: reset.streamId, code: reset.payload.readUInt32BE(0) }).toEqual({
    streamId: 1,
    code: ERROR_CODES.FLOW_CONTROL_ERROR,
  });
  expect(server.streamCount).toBe(1);
  expect(closed).toEqual([]);
});

test('DATA after the end of its stream is refused', async () => {
  const { frames } = await attack(hello, open(1), frame(0, FLAG.END_STREAM, 1, 'x'), frame(0, 0, 1, 'more'));
  const reset = await eventually('a reset', () => frames.find(({ type }) => type === FRAME.RST_STREAM));
  expect(reset.payload.readUInt32BE(0)).toBe(ERROR_CODES.STREAM_CLOSED);
});

test.each(['CANCEL', 'NO_ERROR'] as const)('RST_STREAM with %s before an end is no end', async (code) => {
  const { requests, socket } = await attack(hello, open(1), frame(0, 0, 1, 'half a '));
  const stream = await eventually('the request', () => requests[0]);
  const watched = watch(stream);
  await eventually('the data', () => watched.bytes() === 7);
  socket.write(resetFrame(1, code));
  await watched.until('abort');
  expect(watched.events).toEqual([`abort: stream reset by the peer: ${code}`]);
});

test('a header list counts as decoded: many references to one field are too many', async () => {
  const block = Buffer.concat([
    encodeHeaders(CONNECT).subarray(1), // without the change of the table size
    Buffer.from('400161', 'hex'),
    Buffer.from('7f8101', 'hex'),
  ]);
  const value = Buffer.alloc(256, 'x');
  const attacked = await attack(
    hello,
    frame(1, 4, 1, Buffer.concat([block, value, Buffer.alloc(1_000, 0xbe)])),
  );
  expect(await goawayCode(attacked)).toBe('ENHANCE_YOUR_CALM');
});

test('frames are the same however the bytes are cut', () => {
  const padded = frame(
    0,
    FLAG.PADDED,
    1,
    Buffer.concat([Buffer.from([3]), Buffer.from('padded'), Buffer.alloc(3)]),
  );
  const stream = Buffer.concat([
    open(1),
    padded,
    frame(0, 0, 1, 'data'),
    frame(0, FLAG.PADDED, 1, Buffer.from([0])),
    frame(0, FLAG.END_STREAM, 1),
    pingFrame(Buffer.from('12345678'), false),
    frame(99, 0, 0, 'unknown'),
    settingsFrame([]),
    frame(0, FLAG.END_STREAM | FLAG.PADDED, 3, Buffer.from([2, 0x61, 0, 0])),
  ]);
  const whole = eventsOf([stream]);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 40 }), (sizes) => {
      const pieces: Buffer[] = [];
      let at = 0;
      for (let index = 0; at < stream.length; index++) {
        const size = sizes[index % sizes.length] ?? 1;
        pieces.push(stream.subarray(at, at + size));
        at += size;
      }
      expect(eventsOf(pieces)).toEqual(whole);
    }),
  );
});

/** Frames as text; DATA payloads joined, since they come in pieces. */
function eventsOf(pieces: readonly Buffer[]): readonly string[] {
  const events: string[] = [];
  let data = '';
  const reader = new FrameReader(
    {
      onDataFrame: (streamId, length, flags) => events.push(`DATA ${streamId} ${length} ${flags}`),
      onData: (bytes) => {
        data += bytes.toString('latin1');
      },
      onPadding: (length) => events.push(`padding ${length}`),
      onDataEnd: () => events.push(`end after ${data}`),
      onFrame: (type, flags, streamId, payload) =>
        events.push(`${type} ${flags} ${streamId} ${type > 9 ? '' : payload.toString('hex')}`),
    },
    { frameBytes: 16_384, payloadBytes: 16_384 },
  );
  for (const piece of pieces) reader.read(piece);
  return [...events, data];
}

test('whatever frames come, they end in an answer or in the end of the connection, never in an exception', () => {
  const anyFrame = fc
    .tuple(
      fc.integer({ min: 0, max: 11 }),
      fc.integer({ min: 0, max: 255 }),
      fc.integer({ min: 0, max: 9 }),
      fc.uint8Array({ maxLength: 40 }),
    )
    .map(([type, flags, streamId, payload]) => frame(type, flags, streamId, Buffer.from(payload)));
  const bytes = fc.array(
    fc.oneof(
      anyFrame,
      fc.constantFrom(open(1), open(3), open(5)),
      fc.uint8Array({ maxLength: 30 }).map((each) => Buffer.from(each)),
    ),
  );
  fc.assert(
    fc.property(bytes, (pieces) => {
      const socket = new Socket();
      const server = new Connection(socket, {
        settings: SETTINGS,
        onRequest: (stream) => server.respond(stream, OK, false),
        onClose: (reason) => expect(reason).not.toMatch(/^internal error/),
      });
      for (const piece of [hello, ...pieces]) socket.emit('data', piece);
      socket.destroy();
      server.close('done');
    }),
    { numRuns: 500 },
  );
});
