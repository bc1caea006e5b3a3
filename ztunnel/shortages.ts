import type { Logger } from 'pino';
import type { ShedReport, Shortage } from './shedding.ts';

/** How long something that was refused is shown. */
const SHOWN_MS = 300_000;
/** Of so many pods and shortages at most. */
const MOST_SHOWN = 100;

/** What the ztunnel had to refuse lately. */
export interface ShortageState {
  readonly shortage: Shortage;
  /** `namespace/name`. */
  readonly pod: string;
  /** How often, since it began. */
  readonly count: number;
  readonly error: string;
  /** RFC 3339. */
  readonly since: string;
  readonly last: string;
}

/** What all workers refused for want of something: logged, counted, and kept for a while for who asks. */
export class Shortages {
  readonly #logger: Logger;
  readonly #count: (shortage: Shortage, count: number) => void;
  readonly #states = new Map<string, ShortageState>();

  constructor(logger: Logger, count: (shortage: Shortage, count: number) => void) {
    this.#logger = logger;
    this.#count = count;
  }

  note(reports: readonly ShedReport[], nowMs: number = Date.now()): void {
    for (const { shortage, pod, count, error } of reports) {
      this.#count(shortage, count);
      this.#logger.warn({ shortage, pod, count, error }, 'connections refused for want of something');
      const key = `${shortage} ${pod}`;
      const before = this.#current(nowMs).find((state) => state.shortage === shortage && state.pod === pod);
      const last = new Date(nowMs).toISOString();
      this.#states.delete(key);
      this.#states.set(key, {
        ...{ shortage, pod, error, last },
        count: count + (before?.count ?? 0),
        since: before?.since ?? last,
      });
    }
    for (const key of this.#states.keys()) if (this.#states.size > MOST_SHOWN) this.#states.delete(key);
  }

  /** Those of the last five minutes, the latest last. */
  list(nowMs: number = Date.now()): readonly ShortageState[] {
    return this.#current(nowMs);
  }

  #current(nowMs: number): readonly ShortageState[] {
    return [...this.#states.values()].filter(({ last }) => nowMs - Date.parse(last) < SHOWN_MS);
  }
}
