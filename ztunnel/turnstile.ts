/** It was nobody's turn in time. */
export class TurnstileError extends Error {
  override readonly name = 'TurnstileError';
}

interface Waiter {
  readonly enter: () => void;
}

/** Lets so many through at a time, in the order in which they came. */
export class Turnstile {
  readonly #limit: number;
  readonly #onTimeout: () => void;
  readonly #waiting = new Set<Waiter>();
  #inside = 0;

  /** @param onTimeout it was not somebody's turn in time */
  constructor(limit: number, onTimeout: () => void) {
    this.#limit = limit;
    this.#onTimeout = onTimeout;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /**
   * Does the work when it is its turn. Whoever does not have to wait is not kept for a moment.
   * @throws TurnstileError when that has not come in time; or what the work throws
   */
  async run<T>(work: () => Promise<T>, timeoutMs: number): Promise<T> {
    if (this.#inside >= this.#limit) await this.#wait(timeoutMs);
    else this.#inside += 1;
    try {
      return await work();
    } finally {
      this.#leave();
    }
  }

  #wait(timeoutMs: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiter: Waiter = {
      enter: () => {
        clearTimeout(timer);
        resolve();
      },
    };
    const timer = setTimeout(() => {
      this.#waiting.delete(waiter);
      this.#onTimeout();
      reject(new TurnstileError(`${this.#limit} others were before it for ${timeoutMs} ms`));
    }, timeoutMs);
    this.#waiting.add(waiter);
    return promise;
  }

  /** The place is the next one's, who does not count twice. */
  #leave(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#inside -= 1;
      return;
    }
    this.#waiting.delete(next);
    next.enter();
  }
}
