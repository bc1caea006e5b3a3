import { frame } from '#test/kit/raw-frames.ts';
import { HELLO } from '#test/kit/raw-hbone.ts';
import {
  FLAG,
  FRAME,
  headersFrames,
  pingFrame,
  resetFrame,
  settingsFrame,
  windowUpdateFrame,
} from '#ztunnel/hbone/frames.ts';
import type { Field } from '#ztunnel/hbone/hpack-tables.ts';

/** Makes the frames of one session out of a seed: mostly what a client would send, some of it spoilt, cut or repeated. */
export class FrameMaker {
  readonly #authority: string;
  #state: number;
  #lastStream = 0;

  constructor(seed: number, authority: string) {
    this.#state = seed >>> 0 || 1;
    this.#authority = authority;
  }

  /** Whether the sender waits a turn now. */
  rests(): boolean {
    return this.#oneIn(3);
  }

  /** All that the session sends, in pieces as they are written. */
  *session(): Generator<Buffer> {
    yield this.#oneIn(30) ? this.#spoil(HELLO) : HELLO;
    for (let left = this.#below(60); left > 0; left--) {
      const made = this.#any();
      const bytes = this.#oneIn(8) ? this.#spoil(made) : made;
      const times = this.#oneIn(20) ? this.#below(200) : 1;
      for (let time = 0; time < times; time++) yield bytes;
    }
  }

  #any(): Buffer {
    const id = this.#streamId();
    const makers: readonly (() => Buffer)[] = [
      () => this.#open(),
      () => this.#open(),
      () => frame(FRAME.DATA, this.#oneIn(4) ? FLAG.END_STREAM : 0, id, this.#bytes(2_000)),
      () => frame(FRAME.DATA, this.#oneIn(4) ? FLAG.END_STREAM : 0, id, this.#bytes(60_000)),
      () => frame(FRAME.DATA, FLAG.PADDED, id, this.#bytes(300)),
      () => resetFrame(id, this.#oneIn(2) ? 'CANCEL' : 'NO_ERROR'),
      () => windowUpdateFrame(this.#oneIn(2) ? 0 : id, this.#below(1_000_000)),
      () => windowUpdateFrame(id, 0x7fffffff),
      () => settingsFrame([[this.#below(8), this.#oneIn(2) ? this.#below(70_000) : this.#below(2 ** 31)]]),
      () => frame(FRAME.SETTINGS, FLAG.ACK, 0),
      () => pingFrame(this.#bytesOf(8), this.#oneIn(2)),
      () => frame(FRAME.HEADERS, this.#below(64), id, this.#bytes(200)),
      () => frame(FRAME.CONTINUATION, this.#below(8), id, this.#bytes(200)),
      () => frame(FRAME.GOAWAY, 0, 0, this.#bytesOf(8)),
      () => frame(this.#below(256), this.#below(256), id, this.#bytes(100)),
    ];
    return (makers[this.#below(makers.length)] ?? Buffer.alloc.bind(Buffer, 0))();
  }

  /** A CONNECT; seldom to somebody else, with END_STREAM, or cut into CONTINUATIONs. */
  #open(): Buffer {
    this.#lastStream += this.#oneIn(20) ? 1 : this.#lastStream === 0 ? 1 : 2;
    const fields: Field[] = [
      [':method', this.#oneIn(20) ? 'GET' : 'CONNECT'],
      [':authority', this.#oneIn(6) ? '10.9.9.9:80' : this.#authority],
    ];
    if (this.#oneIn(4)) fields.push(['baggage', 'k8s.namespace.name='.repeat(this.#below(50))]);
    if (this.#oneIn(10)) fields.push([this.#oneIn(2) ? 'Upper' : 'x-y', this.#bytes(100).toString('latin1')]);
    const maxFrameSize = this.#oneIn(4) ? 10 + this.#below(50) : 16_384;
    return headersFrames(this.#lastStream, fields, { endStream: this.#oneIn(12), maxFrameSize });
  }

  /** One that is open, mostly. */
  #streamId(): number {
    const isOurs = !this.#oneIn(10) && this.#lastStream > 0;
    return isOurs ? Math.max(1, this.#lastStream - 2 * this.#below(4)) : this.#below(20);
  }

  /** Other bits, or fewer or more bytes. */
  #spoil(bytes: Buffer): Buffer {
    const copy = Buffer.from(bytes);
    if (this.#oneIn(4)) return copy.subarray(0, this.#below(copy.length));
    if (this.#oneIn(4)) return Buffer.concat([copy, this.#bytes(20)]);
    // In the header, where there is most to be spoilt.
    const at = this.#below(this.#oneIn(2) ? Math.min(9, copy.length) : copy.length);
    copy[at] = (copy[at] ?? 0) ^ (1 << this.#below(8));
    return copy;
  }

  #bytes(below: number): Buffer {
    return this.#bytesOf(this.#below(below));
  }

  #bytesOf(length: number): Buffer {
    return Buffer.alloc(length, this.#below(256));
  }

  #oneIn(count: number): boolean {
    return this.#below(count) === 0;
  }

  /** The next number: mulberry32. */
  #below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
  }
}
