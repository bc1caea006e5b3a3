import { randomBytes } from 'node:crypto';

/** How a connection is kept alive, and found dead. */
export interface KeepaliveOptions {
  /** From the start, and from each answer, to the next PING. */
  readonly intervalMs: number;
  /** From a PING to its answer. */
  readonly timeoutMs: number;
  /** @param payload eight bytes, other ones each time */
  readonly sendPing: (payload: Buffer) => void;
  /** No answer came. */
  readonly onTimeout: () => void;
}

/** Sends a PING when the last one has been answered for a while. */
export class Keepalive {
  readonly #options: KeepaliveOptions;
  #timer: NodeJS.Timeout;
  /** Payload of the PING that is out. */
  #awaited: Buffer | undefined;

  constructor(options: KeepaliveOptions) {
    this.#options = options;
    this.#timer = this.#startInterval();
  }

  /** An answer has come; one that nobody waits for does not count. */
  answered(payload: Buffer): void {
    if (this.#awaited?.equals(payload) !== true) return;
    this.#awaited = undefined;
    clearTimeout(this.#timer);
    this.#timer = this.#startInterval();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #startInterval(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#awaited = newPingPayload();
      this.#options.sendPing(this.#awaited);
      this.#timer = setTimeout(this.#options.onTimeout, this.#options.timeoutMs).unref();
    }, this.#options.intervalMs).unref();
  }
}

/** A payload that a peer cannot know before it is sent. */
export function newPingPayload(): Buffer {
  return randomBytes(8);
}
