import type { Duplex } from 'node:stream';
import {
  FLAG,
  FRAME,
  FRAME_HEADER_SIZE,
  headersFrames,
  PREFACE,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
  writeFrameHeader,
} from '#ztunnel/hbone/frames.ts';
import { HpackDecoder } from '#ztunnel/hbone/hpack.ts';
import type { Field, RawStream } from '../case.ts';
import type { Reception } from './http1-client.ts';

const STREAM = 1;
const MAX_FRAME = 16_384;
const WINDOW = 16 * 1024 * 1024;

/** One stream of HTTP/2 whose fields are sent as they are, whatever they are. Closes the connection. */
export async function askRawStream(
  connection: Duplex,
  { fields, body }: RawStream,
  extra: readonly Field[],
  patienceMs: number,
): Promise<Reception> {
  const decoder = new HpackDecoder(1 << 20);
  const got = {
    status: 0,
    headers: [] as readonly Field[],
    body: '',
    trailers: [] as readonly Field[],
    earlier: [] as number[],
  };
  const { promise, resolve } = Promise.withResolvers<Reception>();
  const done = (end: Reception['end']): void => resolve({ ...got, end });
  const broken = (): void => done(got.status === 0 ? 'none' : 'incomplete');
  const onHeaders = (block: readonly Field[]): void => {
    const status = Number(block.find(([name]) => name === ':status')?.[1] ?? 0);
    if (status === 0) got.trailers = block;
    else if (status < 200) got.earlier.push(status);
    else {
      got.status = status;
      got.headers = block.filter(([name]) => !name.startsWith(':'));
    }
  };
  const onFrame = (type: number, flags: number, streamId: number, payload: Buffer): void => {
    if (type === FRAME.SETTINGS && (flags & FLAG.ACK) === 0) connection.write(settingsAckFrame());
    if (type === FRAME.GOAWAY) broken();
    if (streamId !== STREAM) return;
    if (type === FRAME.RST_STREAM) broken();
    if (type === FRAME.HEADERS) onHeaders(decoder.decode(payload));
    if (type === FRAME.DATA) got.body += payload.toString('latin1');
    if ((type === FRAME.HEADERS || type === FRAME.DATA) && (flags & FLAG.END_STREAM) !== 0) done('complete');
  };
  const timer = setTimeout(done, patienceMs, 'slow');
  connection.on('error', broken);
  connection.on('close', broken);
  connection.on('end', broken);
  connection.on('data', frames(onFrame));
  connection.write(opening([...fields, ...extra], body));
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    connection.destroy();
  }
}

/** Preface, settings, a window that is never used up, and the stream with its body. */
function opening(fields: readonly Field[], body: string | undefined): Buffer {
  const options = { endStream: body === undefined, maxFrameSize: MAX_FRAME };
  const parts = [
    PREFACE,
    settingsFrame([[4, WINDOW]]),
    windowUpdateFrame(0, WINDOW),
    headersFrames(STREAM, fields, options),
  ];
  if (body !== undefined) {
    const data = Buffer.alloc(FRAME_HEADER_SIZE + body.length);
    writeFrameHeader(data, 0, {
      length: body.length,
      type: FRAME.DATA,
      flags: FLAG.END_STREAM,
      streamId: STREAM,
    });
    data.write(body, FRAME_HEADER_SIZE, 'latin1');
    parts.push(data);
  }
  return Buffer.concat(parts);
}

/** Cuts what comes in into frames. Neither proxy pads, nor sends CONTINUATION for heads as small as these. */
function frames(
  onFrame: (type: number, flags: number, streamId: number, payload: Buffer) => void,
): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    for (;;) {
      if (rest.length < FRAME_HEADER_SIZE) return;
      const end = FRAME_HEADER_SIZE + rest.readUIntBE(0, 3);
      if (rest.length < end) return;
      const [type = 0, flags = 0] = rest.subarray(3, 5);
      const frame = rest.subarray(FRAME_HEADER_SIZE, end);
      const streamId = rest.readUInt32BE(5) & 0x7fffffff;
      rest = rest.subarray(end);
      onFrame(type, flags, streamId, frame);
    }
  };
}
