/** Something that is refused for want of room. */
export interface Shortage {
  /** `connections`, `streams of node/n1` */
  readonly subject: string;
  /** Since when it was refused again and again, in milliseconds since the epoch. */
  readonly sinceMs: number;
  /** What there was too much of, the last time. */
  readonly error: string;
}

/** Something is no shortage any more so long after it was refused last. */
const REMEMBERED_MS = 300_000;

/** What was refused in the last five minutes, for `status`. Subjects are few: one for each caller, and the process. */
export class Shortages {
  readonly #now: () => number;
  readonly #all = new Map<string, Shortage & { readonly lastMs: number }>();

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  note(subject: string, error: string): void {
    const lastMs = this.#now();
    const known = this.current().find((each) => each.subject === subject);
    this.#all.set(subject, { subject, sinceMs: known?.sinceMs ?? lastMs, lastMs, error });
  }

  current(): readonly Shortage[] {
    return [...this.#all.values()].filter(({ lastMs }) => this.#now() - lastMs < REMEMBERED_MS);
  }
}
