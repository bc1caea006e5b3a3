/** An answer that nobody wants is read to its end if it is short, so that its connection can be used again. */
export class Unwanted {
  readonly #abort: () => void;
  readonly #timer: NodeJS.Timeout;
  #left = 64 * 1024;

  constructor(abort: () => void) {
    this.#abort = abort;
    this.#timer = setTimeout(abort, 1_000).unref();
  }

  take(bytes: number): void {
    this.#left -= bytes;
    if (this.#left >= 0) return;
    this.over();
    this.#abort();
  }

  over(): void {
    clearTimeout(this.#timer);
  }
}
