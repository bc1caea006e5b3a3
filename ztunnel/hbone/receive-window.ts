import { Http2Error } from './error.ts';
import { countWaiting, isOverBudget } from './memory-budget.ts';

/** A window is given back to the peer in parts of this share, not byte by byte. */
export const CREDIT_SHARE: 4 = 4;

/** What a connection's peer may still send, over all streams. See `memory-budget.ts` for when it gets more. */
export class ReceiveWindow {
  readonly #size: number;
  readonly #sendCredit: (bytes: number) => void;
  #window: number;
  /** Received, and not given back yet. */
  #uncredited = 0;
  /** Bytes of this connection that wait for slow readers. */
  #waiting = 0;

  /** @param sendCredit sends a WINDOW_UPDATE for the connection */
  constructor(size: number, sendCredit: (bytes: number) => void) {
    this.#size = size;
    this.#window = size;
    this.#sendCredit = sendCredit;
  }

  /** @throws Http2Error when the peer has sent more than it may */
  receive(bytes: number): void {
    this.#window -= bytes;
    if (this.#window < 0) throw new Http2Error('window exceeded', 'FLOW_CONTROL_ERROR');
    this.#uncredited += bytes;
    this.#credit();
  }

  /** Bytes that wait for slow readers. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Bytes have come to wait for a slow reader; negative: have been read, or dropped. */
  changeWaiting(bytes: number): void {
    this.#waiting += bytes;
    countWaiting(bytes);
    if (bytes < 0) this.#credit();
  }

  #credit(): void {
    const credit = this.#uncredited - (isOverBudget() ? this.#waiting : 0);
    if (credit < this.#size / CREDIT_SHARE) return;
    this.#sendCredit(credit);
    this.#window += credit;
    this.#uncredited -= credit;
  }
}
