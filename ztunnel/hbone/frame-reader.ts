import { Http2Error } from './error.ts';
import { FLAG, FRAME, FRAME_HEADER_SIZE } from './frames.ts';

/** Takes the frames that a {@link FrameReader} finds. */
export interface FrameSink {
  /** A DATA frame begins; `length` counts against both windows, padding included. */
  readonly onDataFrame: (streamId: number, length: number, flags: number) => void;
  /** A piece of its payload; a view of the bytes that came in. */
  readonly onData: (bytes: Buffer) => void;
  /** So much of it was padding. */
  readonly onPadding: (length: number) => void;
  /** It was complete, and the last of its stream. */
  readonly onDataEnd: () => void;
  /** Any other frame, padding still in it. Of an unknown type only that it was there: its payload is not whole. */
  readonly onFrame: (type: number, flags: number, streamId: number, payload: Buffer) => void;
}

/**
 * Cuts a byte stream into HTTP/2 frames. DATA is handed on as it comes; other frames are gathered, up to a limit; unknown
 * ones are skipped.
 */
export class FrameReader {
  readonly #sink: FrameSink;
  readonly #maxFrameSize: number;
  readonly #maxPayload: number;
  readonly #header = Buffer.alloc(FRAME_HEADER_SIZE);
  /** Bytes of `#header` that are there; all nine: a frame is being read. */
  #headerSize = 0;
  #type = 0;
  #flags = 0;
  #streamId = 0;
  /** Payload bytes that are still to come, padding not included for DATA. */
  #left = 0;
  #padding = 0;
  #needsPadLength = false;
  /** Payload of a frame other than DATA that did not come in one piece. */
  #gathered: Buffer | undefined;

  /**
   * @param limits `frameBytes` as SETTINGS_MAX_FRAME_SIZE says; `payloadBytes` of a frame other than DATA
   */
  constructor(sink: FrameSink, limits: { readonly frameBytes: number; readonly payloadBytes: number }) {
    this.#sink = sink;
    this.#maxFrameSize = limits.frameBytes;
    this.#maxPayload = limits.payloadBytes;
  }

  /** @throws Http2Error: the connection cannot go on */
  read(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#headerSize < FRAME_HEADER_SIZE) at = this.#readHeader(chunk, at);
      if (this.#headerSize === FRAME_HEADER_SIZE) {
        at = this.#type === FRAME.DATA ? this.#readData(chunk, at) : this.#readOther(chunk, at);
      }
    }
  }

  #readHeader(chunk: Buffer, at: number): number {
    if (this.#headerSize === 0 && chunk.length - at >= FRAME_HEADER_SIZE) {
      this.#begin(chunk, at);
      return at + FRAME_HEADER_SIZE;
    }
    const taken = Math.min(FRAME_HEADER_SIZE - this.#headerSize, chunk.length - at);
    chunk.copy(this.#header, this.#headerSize, at, at + taken);
    this.#headerSize += taken;
    if (this.#headerSize === FRAME_HEADER_SIZE) this.#begin(this.#header, 0);
    return at + taken;
  }

  #begin(header: Buffer, at: number): void {
    const lengthAndType = header.readUInt32BE(at);
    const length = lengthAndType >>> 8;
    this.#headerSize = FRAME_HEADER_SIZE;
    this.#type = lengthAndType & 0xff;
    this.#flags = header[at + 4] ?? 0;
    this.#streamId = header.readUInt32BE(at + 5) & 0x7fffffff;
    this.#left = length;
    if (length > this.#maxFrameSize) throw new Http2Error(`frame of ${length} bytes`, 'FRAME_SIZE_ERROR');
    if (this.#type === FRAME.DATA) this.#beginData(length);
    else if (this.#type <= FRAME.CONTINUATION && length > this.#maxPayload) {
      throw new Http2Error(`frame of type ${this.#type} with ${length} bytes`, 'ENHANCE_YOUR_CALM');
    }
  }

  #beginData(length: number): void {
    if (this.#streamId === 0) throw new Http2Error('DATA without a stream', 'PROTOCOL_ERROR');
    this.#padding = 0;
    this.#needsPadLength = (this.#flags & FLAG.PADDED) !== 0;
    if (this.#needsPadLength && length === 0) throw new Http2Error('DATA too short', 'FRAME_SIZE_ERROR');
    this.#sink.onDataFrame(this.#streamId, length, this.#flags);
    if (length === 0) this.#endData();
  }

  #readData(chunk: Buffer, start: number): number {
    let at = start;
    if (this.#needsPadLength && at < chunk.length) {
      this.#padding = chunk[at++] ?? 0;
      this.#left -= 1 + this.#padding;
      this.#needsPadLength = false;
      if (this.#left < 0) throw new Http2Error('padding longer than its frame', 'PROTOCOL_ERROR');
      this.#sink.onPadding(1 + this.#padding);
    }
    const taken = Math.min(this.#left, chunk.length - at);
    if (taken > 0) {
      this.#left -= taken;
      this.#sink.onData(chunk.subarray(at, at + taken));
      at += taken;
    }
    if (this.#left === 0 && this.#padding > 0) {
      const skipped = Math.min(this.#padding, chunk.length - at);
      this.#padding -= skipped;
      at += skipped;
    }
    if (this.#left === 0 && this.#padding === 0 && !this.#needsPadLength) this.#endData();
    return at;
  }

  #endData(): void {
    this.#headerSize = 0;
    if ((this.#flags & FLAG.END_STREAM) !== 0) this.#sink.onDataEnd();
  }

  #readOther(chunk: Buffer, at: number): number {
    const taken = Math.min(this.#left, chunk.length - at);
    const piece = chunk.subarray(at, at + taken);
    const isWhole = this.#gathered === undefined && taken === this.#left;
    if (!isWhole && this.#type <= FRAME.CONTINUATION) {
      this.#gathered ??= Buffer.allocUnsafe(this.#left);
      piece.copy(this.#gathered, this.#gathered.length - this.#left);
    }
    this.#left -= taken;
    if (this.#left > 0) return at + taken;
    const payload = this.#gathered ?? piece;
    this.#headerSize = 0;
    this.#gathered = undefined;
    this.#sink.onFrame(this.#type, this.#flags, this.#streamId, payload);
    return at + taken;
  }
}
