/** Lets bytes pass at a steady rate: for a fault that makes answers slow. Bytes that wait are not read for. */
export class RateLimit {
  readonly #bytesPerMs: number;
  readonly #waiting: Buffer[] = [];
  readonly #send: (chunk: Buffer) => boolean;
  #isBlocked = false;
  readonly #onEmpty: () => void;
  #timer: NodeJS.Timeout | undefined;
  #atMs = 0;
  #credit = 0;
  #onEnd: (() => void) | undefined;

  /**
   * @param kbps kibibytes a second, as Envoy counts
   * @param send false: it takes no more until `resume`
   * @param onEmpty nothing waits any more
   */
  constructor(kbps: number, send: (chunk: Buffer) => boolean, onEmpty: () => void) {
    this.#bytesPerMs = (Math.max(1, kbps) * 1024) / 1000;
    this.#send = send;
    this.#onEmpty = onEmpty;
    this.#atMs = performance.now();
  }

  /** @returns whether all has gone already; else wait for `onEmpty` */
  write(chunk: Buffer): boolean {
    this.#waiting.push(chunk);
    this.#flush();
    return this.#waiting.length === 0 && !this.#isBlocked;
  }

  /** Bytes that wait. */
  held(): number {
    let bytes = 0;
    for (const { length } of this.#waiting) bytes += length;
    return bytes;
  }

  /** Ends after what waits. */
  end(onEnd: () => void): void {
    if (this.#waiting.length === 0) onEnd();
    else this.#onEnd = onEnd;
  }

  /** There is room again where it goes. */
  resume(): void {
    this.#isBlocked = false;
    if (this.#waiting.length > 0 && this.#timer === undefined) this.#arm();
    else if (this.#waiting.length === 0) this.#onEmpty();
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
    while (this.#credit >= 1 && !this.#isBlocked) {
      const next = this.#waiting[0];
      if (next === undefined) break;
      const size = Math.min(next.length, Math.floor(this.#credit));
      this.#credit -= size;
      if (size === next.length) this.#waiting.shift();
      else this.#waiting[0] = next.subarray(size);
      this.#isBlocked = !this.#send(next.subarray(0, size));
    }
    if (this.#waiting.length > 0 && !this.#isBlocked && this.#timer === undefined) this.#arm();
  }

  #arm(): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#flush();
      if (this.#waiting.length > 0) return;
      // It may bring more at once, and the end behind that.
      if (!this.#isBlocked) this.#onEmpty();
      if (this.#waiting.length === 0) this.#onEnd?.();
    }, TICK_MS);
  }
}

const TICK_MS = 50;
