import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ControlError, ControlReader, encodeControlMessage } from '#ztunnel/hbone/control-messages.ts';
import { Http2Error } from '#ztunnel/hbone/error.ts';
import { FrameReader } from '#ztunnel/hbone/frame-reader.ts';
import {
  FRAME,
  goawayFrame,
  headersFrames,
  pingFrame,
  resetFrame,
  settingsFrame,
  windowUpdateFrame,
} from '#ztunnel/hbone/frames.ts';
import { HeaderBlocks } from '#ztunnel/hbone/header-block.ts';
import { encodeHeaders, HpackDecoder } from '#ztunnel/hbone/hpack.ts';
import { decodeHuffman, type Field } from '#ztunnel/hbone/hpack-tables.ts';
import { faultOfAnswer, faultOfRequest } from '#ztunnel/hbone/message-faults.ts';
import { applySettings, INITIAL_PEER_SETTINGS } from '#ztunnel/hbone/peer-settings.ts';
import { always, bytesNear, inPieces, outcomeOf } from './fuzz.ts';

const ID = '0123456789abcdef0123456789abcdef';
const REQUEST: readonly Field[] = [
  [':method', 'CONNECT'],
  [':authority', '10.0.0.1:80'],
  ['baggage', 'k8s.namespace.name=shop'],
  ['x-tulle-connection', ID],
];
const BLOCK = encodeHeaders(REQUEST);
/** Indexed, added to the table, a size of the table, Huffman: what an encoder other than ours writes. */
const FOREIGN = Buffer.from(
  '3fe11f828684418cf1e3c2e5f23a6ba0ab90f4ff400a637573746f6d2d6b65790d637573746f6d2d686561646572be',
  'hex',
);
const DATA = Buffer.from('000005000100000001', 'hex');
const STREAM = Buffer.concat([
  settingsFrame([
    [3, 100],
    [4, 1_048_576],
  ]),
  headersFrames(1, REQUEST, { endStream: false, maxFrameSize: 16_384 }),
  DATA,
  Buffer.from('hello'),
  Buffer.from('00000a0008000000010468656c6c6f00000000', 'hex'),
  windowUpdateFrame(0, 65_535),
  pingFrame(Buffer.alloc(8), false),
  resetFrame(1, 'CANCEL'),
  goawayFrame(1, 'NO_ERROR'),
]);

/** What a reader finds, data joined; `error`: where it stopped. */
function framesOf(pieces: readonly Buffer[]): {
  readonly found: readonly string[];
  readonly error: string | undefined;
} {
  const found: string[] = [];
  let data = '';
  const reader = new FrameReader(
    {
      onDataFrame: (streamId, length, flags) => found.push(`data ${streamId} ${length} ${flags}`),
      onData: (bytes) => {
        data += bytes.toString('hex');
      },
      onPadding: (length) => found.push(`padding ${length}`),
      onDataEnd: () => found.push('end'),
      onFrame: (type, flags, streamId, payload) =>
        found.push(
          `${type} ${flags} ${streamId} ${type <= FRAME.CONTINUATION ? payload.toString('hex') : ''}`,
        ),
    },
    { frameBytes: 16_384, payloadBytes: 16_384 },
  );
  const error = outcomeOf(() => {
    for (const piece of pieces) reader.read(piece);
    return 'read';
  }, Http2Error);
  return { found: [...found, data], error };
}

test('frames are the same in whatever pieces they come, and what is none is an Http2Error', () => {
  always(inPieces(bytesNear(STREAM)), ({ whole, pieces }) => {
    expect(framesOf(pieces)).toEqual(framesOf([whole]));
  });
});

test('a header block is a list within its bound, or an Http2Error; the table stays in its bound, too', () => {
  const blocks = fc.array(bytesNear(BLOCK, FOREIGN), { minLength: 1, maxLength: 4 });
  always(blocks, (each) => {
    const decoder = new HpackDecoder(16_384);
    for (const block of each) {
      const fields = outcomeOf(() => decoder.decode(block), Http2Error);
      if (fields === undefined) return;
      const cost = fields.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);
      expect(cost).toBeLessThanOrEqual(16_384);
      expect(new HpackDecoder(32_768).decode(encodeHeaders(fields))).toEqual(fields);
      expect([undefined, 'string']).toContain(
        typeof faultOfRequest(fields) === 'string' ? 'string' : undefined,
      );
      faultOfAnswer(fields);
    }
  });
});

test('header blocks in any frames are lists, or Http2Errors', () => {
  const frame = fc.record({
    type: fc.constantFrom(FRAME.HEADERS, FRAME.CONTINUATION),
    flags: fc.nat(255),
    payload: bytesNear(BLOCK, FOREIGN, Buffer.alloc(0)),
  });
  always(fc.array(frame, { maxLength: 8 }), (frames) => {
    const blocks = new HeaderBlocks(16_384);
    outcomeOf(() => {
      for (const { type, flags, payload } of frames) blocks.read(type, flags, 1, payload);
    }, Http2Error);
  });
});

test('Huffman code is text, or none', () => {
  always(bytesNear(FOREIGN, Buffer.from('f1e3c2e5f23a6ba0ab90f4ff', 'hex')), (bytes) => {
    const text = decodeHuffman(bytes, 0, bytes.length);
    if (text !== undefined) expect(text.length).toBeLessThanOrEqual(Math.ceil((bytes.length * 8) / 5));
  });
});

test('settings are within the limits of the protocol, or an Http2Error', () => {
  always(
    bytesNear(
      settingsFrame([
        [3, 100],
        [4, 1_048_576],
        [5, 16_384],
        [2, 0],
      ]).subarray(9),
    ),
    (payload) => {
      const settings = outcomeOf(() => applySettings(INITIAL_PEER_SETTINGS, payload), Http2Error);
      if (settings === undefined) return;
      expect(settings.initialWindowSize).toBeLessThanOrEqual(0x7fffffff);
      expect(settings.maxFrameSize).toBeGreaterThanOrEqual(16_384);
    },
  );
});

test('messages of a control stream are the same in whatever pieces they come, or a ControlError', () => {
  const samples = [
    encodeControlMessage({ kind: 'announce', number: 1, ids: [ID, ID] }),
    encodeControlMessage({ kind: 'rested', id: ID, sent: 12, fin: true, follows: 1 }),
    encodeControlMessage({ kind: 'commit', id: ID }),
  ];
  const read = (pieces: readonly Buffer[]): unknown => {
    const reader = new ControlReader();
    return outcomeOf(() => pieces.flatMap((piece) => reader.read(piece)), ControlError);
  };
  always(inPieces(bytesNear(...samples, Buffer.concat(samples))), ({ whole, pieces }) => {
    expect(read(pieces)).toEqual(read([whole]));
  });
});
