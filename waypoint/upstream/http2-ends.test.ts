import type { Socket } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { SETTINGS } from '#ztunnel/hbone/testing.ts';
import type { AttemptFailure } from './attempt.ts';
import { cluster, downstream, endpoint, rawApp } from './testing.ts';
import { createUpstream, type Upstream } from './upstream.ts';

/** How answers in HTTP/2 end, frame by frame: only END_STREAM makes one complete. */

let upstream: Upstream;

beforeEach(() => {
  upstream = createUpstream({ svid: () => undefined, settings: SETTINGS });
});
afterEach(() => upstream.close());

const END_STREAM = 1;
const END_HEADERS = 4;
/** HPACK: the static table has `:status: 200` at 8. */
const OK = Buffer.from([0x88]);
/** A literal with a new name: `grpc-status: 0`. */
const GRPC_OK = Buffer.concat([Buffer.from([0x00, 11]), Buffer.from('grpc-status'), Buffer.from([1, 0x30])]);

function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

const settings = frame(4, 0, 0);
const head = (flags = 0): Buffer => frame(1, END_HEADERS | flags, 1, OK);
const data = (flags = 0): Buffer => frame(0, flags, 1, Buffer.from('half'));
const trailers = frame(1, END_HEADERS | END_STREAM, 1, GRPC_OK);
const reset = (code: number): Buffer => frame(3, 0, 1, Buffer.from([0, 0, 0, code]));
const goaway = frame(7, 0, 0, Buffer.from([0, 0, 0, 1, 0, 0, 0, 0]));

/** HEADERS of stream 1: type, flags, stream. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: frames are made of them
const REQUEST = /\x01[\x04\x05\x24\x25]\x00\x00\x00\x01/;
const POST = { method: 'POST', target: '/', authority: 'ledger', scheme: 'http', headers: [] } as const;

interface Answered {
  readonly text: string;
  readonly end: readonly string[] | AttemptFailure;
}

/** Sends a request; the application sends the frames, once, when the request's head has come. */
async function answered(
  frames: readonly Buffer[],
  options: { readonly hasBody?: boolean; readonly after?: (socket: Socket) => void } = {},
): Promise<Answered> {
  const { hasBody = false, after } = options;
  let hasAnswered = false;
  await using app = await rawApp((socket, text) => {
    if (hasAnswered || !REQUEST.test(text)) return;
    hasAnswered = true;
    socket.write(Buffer.concat([settings, ...frames]), () => after?.(socket));
  });
  const to = endpoint(app.port);
  const target = { caller: downstream().caller, endpoint: to, address: to.address, cluster: cluster([to]) };
  const request = { ...POST, hasBody };
  const { promise, resolve } = Promise.withResolvers<Answered>();
  let text = '';
  upstream.send('http2', target, request, {
    onInform: () => undefined,
    onHead: () => undefined,
    onData: (chunk) => {
      text += chunk.toString('latin1');
    },
    onEnd: (list) => resolve({ text, end: list }),
    onUpgrade: () => undefined,
    onFailure: (failure) => resolve({ text, end: failure }),
    onDrain: () => undefined,
  });
  return await promise;
}

const BODIES = [{ hasBody: false }, { hasBody: true }];

test.each(BODIES)('END_STREAM ends an answer (request is still under way: $hasBody)', async (options) => {
  expect(await answered([head(), data(END_STREAM)], options)).toEqual({ text: 'half', end: [] });
  upstream.close();
  upstream = createUpstream({ svid: () => undefined, settings: SETTINGS });
  expect(await answered([head(END_STREAM)], options)).toEqual({ text: '', end: [] });
});

test.each(BODIES)('so does it with trailers (request is still under way: $hasBody)', async (options) => {
  expect(await answered([head(), data(), trailers], options)).toEqual({
    text: 'half',
    end: ['grpc-status', '0'],
  });
});

test('after it, a reset without an error says that the rest of the request is not wanted', async () => {
  const all = [head(), data(), trailers, reset(0)];
  expect(await answered(all, { hasBody: true })).toEqual({ text: 'half', end: ['grpc-status', '0'] });
});

test.each(BODIES)(
  'a reset without an error before it cuts an answer short (request is still under way: $hasBody)',
  async (options) => {
    const { text, end } = await answered([head(), data(), reset(0)], options);
    expect([text, end]).toEqual(['half', expect.objectContaining({ kind: 'reset' })]);
  },
);

test.each([
  { how: 'ends', after: (socket: Socket) => socket.end() },
  { how: 'breaks', after: (socket: Socket) => socket.resetAndDestroy() },
])('a connection that $how before it does, too', async ({ after }) => {
  const { end } = await answered([head(), data()], { after });
  expect(end).toMatchObject({ kind: 'closed' });
});

test('and one that says goodbye before', async () => {
  const after = (socket: Socket): void => void socket.end();
  const { end } = await answered([head(), data(), goaway], { after });
  expect(end).toMatchObject({ kind: 'closed' });
});

test('answers before the answer without end are refused', async () => {
  const inform = frame(1, END_HEADERS, 1, Buffer.concat([Buffer.from([0x08, 3]), Buffer.from('103')]));
  const { end } = await answered(Array.from({ length: 100 }, () => inform));
  expect(end).toMatchObject({ kind: 'protocol' });
});

test('a stream that is reset for a protocol error is not just lost', async () => {
  expect((await answered([reset(1)])).end).toMatchObject({ kind: 'protocol' });
});
