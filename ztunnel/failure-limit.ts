/** Failures a second that are written; what comes beyond is one line for all. */
const MOST_A_SECOND = 100;

/** Keeps those who fail, and come again at once, from filling a log. */
export class FailureLimit {
  #second = 0;
  #inSecond = 0;

  /** @returns what to write of one more; undefined: nothing */
  text(error: string): string | undefined {
    const second = Math.floor(performance.now() / 1000);
    if (second !== this.#second) this.#inSecond = 0;
    this.#second = second;
    this.#inSecond += 1;
    if (this.#inSecond > MOST_A_SECOND) return undefined;
    return this.#inSecond < MOST_A_SECOND ? error : `${error}; more failures of this second are not written`;
  }
}
