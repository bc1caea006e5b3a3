/** Lets bytes pass at a steady rate: for a fault that makes answers slow. Bytes that wait are not read for. */
export class RateLimit {
  readonly #bytesPerMs: number;
  readonly #waiting: Buffer[] = [];
  readonly #send: (chunk: Buffer) => void;
  readonly #onEmpty: () => void;
  #timer: NodeJS.Timeout | undefined;
  #atMs = 0;
  #credit = 0;
  #onEnd: (() => void) | undefined;

  /**
   * @param kbps kibibytes a second, as Envoy counts
   * @param onEmpty nothing waits any more
   */
  constructor(kbps: number, send: (chunk: Buffer) => void, onEmpty: () => void) {
    this.#bytesPerMs = (Math.max(1, kbps) * 1024) / 1000;
    this.#send = send;
    this.#onEmpty = onEmpty;
    this.#atMs = performance.now();
  }

  /** @returns whether all has gone already; else wait for `onEmpty` */
  write(chunk: Buffer): boolean {
    this.#waiting.push(chunk);
    this.#flush();
    return this.#waiting.length === 0;
  }

  /** Ends after what waits. */
  end(onEnd: () => void): void {
    if (this.#waiting.length === 0) onEnd();
    else this.#onEnd = onEnd;
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#waiting.length = 0;
    this.#onEnd = undefined;
  }

  #flush(): void {
    const now = performance.now();
    // No more is saved up than a twentieth of a second.
    this.#credit = Math.min(this.#credit + (now - this.#atMs) * this.#bytesPerMs, this.#bytesPerMs * TICK_MS);
    this.#atMs = now;
    for (let next = this.#waiting[0]; next !== undefined && this.#credit >= 1; next = this.#waiting[0]) {
      const size = Math.min(next.length, Math.floor(this.#credit));
      this.#credit -= size;
      if (size === next.length) this.#waiting.shift();
      else this.#waiting[0] = next.subarray(size);
      this.#send(next.subarray(0, size));
    }
    if (this.#waiting.length > 0 && this.#timer === undefined) this.#arm();
  }

  #arm(): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#flush();
      if (this.#waiting.length > 0) return;
      this.#onEmpty();
      this.#onEnd?.();
    }, TICK_MS);
  }
}

const TICK_MS = 50;
