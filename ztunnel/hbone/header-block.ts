import { Http2Error } from './error.ts';
import { FLAG, FRAME } from './frames.ts';
import { HpackDecoder } from './hpack.ts';
import type { Field } from './hpack-tables.ts';

/** A complete header list. */
export interface HeaderList {
  readonly streamId: number;
  readonly fields: readonly Field[];
  readonly endStream: boolean;
}

/** Puts header lists together from HEADERS and CONTINUATION frames, within bounds. */
export class HeaderBlocks {
  readonly #decoder: HpackDecoder;
  readonly #maxBytes: number;
  #open:
    | { readonly streamId: number; readonly endStream: boolean; readonly pieces: Buffer[]; bytes: number }
    | undefined;

  /** @param maxBytes of a header list, encoded and decoded */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
    this.#decoder = new HpackDecoder(maxBytes);
  }

  /** Whether only a CONTINUATION of this stream may come next. */
  get openStream(): number | undefined {
    return this.#open?.streamId;
  }

  /**
   * Takes a HEADERS or CONTINUATION frame.
   * @returns the list when the frame completes one
   * @throws Http2Error
   */
  read(type: number, flags: number, streamId: number, payload: Buffer): HeaderList | undefined {
    if (type === FRAME.HEADERS) {
      const endStream = (flags & FLAG.END_STREAM) !== 0;
      this.#open = { streamId, endStream, pieces: [], bytes: 0 };
    }
    const open = this.#open;
    if (open === undefined) throw new Http2Error('CONTINUATION without HEADERS', 'PROTOCOL_ERROR');
    const fragment = type === FRAME.HEADERS ? fragmentOf(flags, payload) : payload;
    const isComplete = (flags & FLAG.END_HEADERS) !== 0;
    open.bytes += fragment.length;
    if (open.bytes > this.#maxBytes) throw new Http2Error('header block too large', 'ENHANCE_YOUR_CALM');
    // A fragment is a view of what came in; one that has to wait is copied.
    open.pieces.push(isComplete ? fragment : Buffer.from(fragment));
    if (!isComplete) return undefined;
    this.#open = undefined;
    const [first = fragment, ...more] = open.pieces;
    const block = more.length > 0 ? Buffer.concat(open.pieces) : first;
    return { streamId: open.streamId, fields: this.#decoder.decode(block), endStream: open.endStream };
  }
}

function fragmentOf(flags: number, payload: Buffer): Buffer {
  let start = 0;
  let end = payload.length;
  if ((flags & FLAG.PADDED) !== 0) {
    end -= payload[0] ?? 0;
    start = 1;
  }
  if ((flags & FLAG.PRIORITY) !== 0) start += 5;
  if (start > end) throw new Http2Error('padding longer than its frame', 'PROTOCOL_ERROR');
  return payload.subarray(start, end);
}
