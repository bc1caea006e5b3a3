import { ERROR_CODES, type ErrorCode } from './error.ts';
import { encodeHeaders } from './hpack.ts';
import type { Field } from './hpack-tables.ts';

/** Frame types: RFC 9113, section 6. */
export const FRAME: {
  readonly DATA: 0;
  readonly HEADERS: 1;
  readonly PRIORITY: 2;
  readonly RST_STREAM: 3;
  readonly SETTINGS: 4;
  readonly PUSH_PROMISE: 5;
  readonly PING: 6;
  readonly GOAWAY: 7;
  readonly WINDOW_UPDATE: 8;
  readonly CONTINUATION: 9;
} = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
};

/** Frame flags; END_STREAM and ACK are the same bit on different frames. */
export const FLAG: {
  readonly END_STREAM: 1;
  readonly ACK: 1;
  readonly END_HEADERS: 4;
  readonly PADDED: 8;
  readonly PRIORITY: 32;
} = { END_STREAM: 1, ACK: 1, END_HEADERS: 4, PADDED: 8, PRIORITY: 32 };

/** Setting identifiers: RFC 9113, 6.5.2. */
export const SETTING: {
  readonly HEADER_TABLE_SIZE: 1;
  readonly ENABLE_PUSH: 2;
  readonly MAX_CONCURRENT_STREAMS: 3;
  readonly INITIAL_WINDOW_SIZE: 4;
  readonly MAX_FRAME_SIZE: 5;
  readonly MAX_HEADER_LIST_SIZE: 6;
} = {
  HEADER_TABLE_SIZE: 1,
  ENABLE_PUSH: 2,
  MAX_CONCURRENT_STREAMS: 3,
  INITIAL_WINDOW_SIZE: 4,
  MAX_FRAME_SIZE: 5,
  MAX_HEADER_LIST_SIZE: 6,
};

/** What a client sends first. */
export const PREFACE: Buffer = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');
export const FRAME_HEADER_SIZE: 9 = 9;
/** Windows of streams and of the connection before any setting or update. */
export const DEFAULT_WINDOW: 65_535 = 65_535;
/** Largest frame before any setting. */
export const DEFAULT_FRAME_SIZE: 16_384 = 16_384;
export const MAX_WINDOW: 0x7fffffff = 0x7fffffff;
/** Largest stream ID; in a GOAWAY it refuses nothing yet. */
export const MAX_STREAM_ID: 0x7fffffff = 0x7fffffff;
/** Stream ID of frames that are about the connection. */
export const CONNECTION: 0 = 0;

/** Writes a frame header at `at`; the payload follows. */
export function writeFrameHeader(
  into: Buffer,
  at: number,
  frame: {
    readonly length: number;
    readonly type: number;
    readonly flags: number;
    readonly streamId: number;
  },
): void {
  into.writeUInt32BE((frame.length << 8) | frame.type, at);
  into[at + 4] = frame.flags;
  into.writeUInt32BE(frame.streamId, at + 5);
}

/** A frame with four bytes of payload: RST_STREAM, WINDOW_UPDATE. */
function fourByteFrame(type: number, streamId: number, value: number): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_SIZE + 4);
  writeFrameHeader(bytes, 0, { length: 4, type, flags: 0, streamId });
  bytes.writeUInt32BE(value, FRAME_HEADER_SIZE);
  return bytes;
}

export function resetFrame(streamId: number, code: ErrorCode): Buffer {
  return fourByteFrame(FRAME.RST_STREAM, streamId, ERROR_CODES[code]);
}

export function windowUpdateFrame(streamId: number, increment: number): Buffer {
  return fourByteFrame(FRAME.WINDOW_UPDATE, streamId, increment);
}

/** @param opaque eight bytes */
export function pingFrame(opaque: Uint8Array, isAck: boolean): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_SIZE + 8);
  writeFrameHeader(bytes, 0, {
    length: 8,
    type: FRAME.PING,
    flags: isAck ? FLAG.ACK : 0,
    streamId: CONNECTION,
  });
  bytes.set(opaque, FRAME_HEADER_SIZE);
  return bytes;
}

export function goawayFrame(lastStreamId: number, code: ErrorCode): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_SIZE + 8);
  writeFrameHeader(bytes, 0, { length: 8, type: FRAME.GOAWAY, flags: 0, streamId: CONNECTION });
  bytes.writeUInt32BE(lastStreamId, FRAME_HEADER_SIZE);
  bytes.writeUInt32BE(ERROR_CODES[code], FRAME_HEADER_SIZE + 4);
  return bytes;
}

export function settingsFrame(settings: readonly (readonly [id: number, value: number])[]): Buffer {
  const length = settings.length * 6;
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_SIZE + length);
  writeFrameHeader(bytes, 0, { length, type: FRAME.SETTINGS, flags: 0, streamId: CONNECTION });
  let at: number = FRAME_HEADER_SIZE;
  for (const [id, value] of settings) {
    bytes.writeUInt16BE(id, at);
    bytes.writeUInt32BE(value, at + 2);
    at += 6;
  }
  return bytes;
}

export function settingsAckFrame(): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_SIZE);
  writeFrameHeader(bytes, 0, { length: 0, type: FRAME.SETTINGS, flags: FLAG.ACK, streamId: CONNECTION });
  return bytes;
}

/** A header block as HEADERS, and CONTINUATION as far as the peer's largest frame makes it necessary. */
export function headersFrames(
  streamId: number,
  fields: readonly Field[],
  options: { readonly endStream: boolean; readonly maxFrameSize: number },
): Buffer {
  const block = encodeHeaders(fields);
  const pieces: Buffer[] = [];
  let at = 0;
  do {
    const payload = block.subarray(at, at + options.maxFrameSize);
    const isFirst = at === 0;
    at += payload.length;
    const end = at === block.length ? FLAG.END_HEADERS : 0;
    const header = Buffer.allocUnsafe(FRAME_HEADER_SIZE);
    writeFrameHeader(header, 0, {
      length: payload.length,
      type: isFirst ? FRAME.HEADERS : FRAME.CONTINUATION,
      flags: end | (isFirst && options.endStream ? FLAG.END_STREAM : 0),
      streamId,
    });
    pieces.push(header, payload);
  } while (at < block.length);
  return Buffer.concat(pieces);
}
