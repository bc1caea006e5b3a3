import { isAmple, isScarce } from './memory-budget.ts';

/** What a stream may be sent before its reader reads, where memory is scarce. */
const SMALL_WINDOW = 256 * 1024;

/**
 * The windows that streams of one connection start with: as configured, or small while memory is scarce and something waits here.
 * A change is one SETTINGS, and reaches streams that are open, too: a stalled one can be sent no more, and the others go on in
 * smaller steps (RFC 9113, 6.9.2).
 */
export class StreamWindows {
  readonly #full: number;
  readonly #send: (window: number) => void;
  readonly #change: (bytes: number) => void;
  /** Sent last. */
  #size: number;
  /** What streams are held to: the larger of two while the peer may not know the smaller yet. */
  #held: number;
  /** SETTINGS that the peer has not answered. */
  #unanswered = 1;

  /**
   * @param full as configured
   * @param send sends the SETTINGS
   * @param change all open streams may be sent so many bytes more or, negative, fewer
   */
  constructor(full: number, send: (window: number) => void, change: (bytes: number) => void) {
    this.#full = full;
    this.#send = send;
    this.#change = change;
    this.#size = isScarce() ? this.#small : full;
    this.#held = this.#size;
  }

  get #small(): number {
    return Math.min(this.#full, SMALL_WINDOW);
  }

  /** What the peer has been told last. */
  get size(): number {
    return this.#size;
  }

  /** What a stream that opens now may be sent. */
  get initial(): number {
    return this.#held;
  }

  /** So many bytes of the connection wait for slow readers. */
  adjust(waiting: number): void {
    if (this.#unanswered > 0) return;
    if (this.#size > this.#small && waiting >= this.#small && isScarce()) this.#resize(this.#small);
    else if (this.#size < this.#full && waiting < this.#small && isAmple()) {
      this.#resize(this.#full);
      this.#hold(this.#full);
    }
  }

  /** The peer has answered a SETTINGS. */
  answered(): void {
    this.#unanswered = Math.max(0, this.#unanswered - 1);
    this.#hold(this.#size);
  }

  #resize(size: number): void {
    this.#size = size;
    this.#unanswered += 1;
    this.#send(size);
  }

  #hold(size: number): void {
    const change = size - this.#held;
    this.#held = size;
    if (change !== 0) this.#change(change);
  }
}
