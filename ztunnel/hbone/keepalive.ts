/** How a connection is kept alive, and found dead. */
export interface KeepaliveOptions {
  /** From the start, and from each answer, to the next PING. */
  readonly intervalMs: number;
  /** From a PING to its answer. */
  readonly timeoutMs: number;
  readonly sendPing: () => void;
  /** No answer came. */
  readonly onTimeout: () => void;
}

/** Sends a PING when the last one has been answered for a while. */
export class Keepalive {
  readonly #options: KeepaliveOptions;
  #timer: NodeJS.Timeout;

  constructor(options: KeepaliveOptions) {
    this.#options = options;
    this.#timer = this.#startInterval();
  }

  /** The answer has come. */
  answered(): void {
    clearTimeout(this.#timer);
    this.#timer = this.#startInterval();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }

  #startInterval(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#options.sendPing();
      this.#timer = setTimeout(this.#options.onTimeout, this.#options.timeoutMs).unref();
    }, this.#options.intervalMs).unref();
  }
}
