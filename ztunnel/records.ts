import type { AccessRecord } from './access-log.ts';

const FLUSH_MS = 50;
/** A batch this long leaves at once. */
const BATCH_SIZE = 2_000;

/** What writes its record of an opening when a batch leaves, unless it is over by then. */
export interface OpeningRecord {
  readonly writeOpening: () => void;
}

/**
 * Access records on their way to the main thread, gathered for up to 50 ms. A connection that is over by then has one record
 * for its opening and its end: most are short, and each record crosses threads.
 */
export class Records {
  readonly #send: (records: readonly AccessRecord[]) => void;
  #batch: AccessRecord[] = [];
  #openings: OpeningRecord[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(send: (records: readonly AccessRecord[]) => void) {
    this.#send = send;
  }

  add(record: AccessRecord): void {
    this.#batch.push(record);
    if (this.#batch.length >= BATCH_SIZE) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), FLUSH_MS);
  }

  /** A connection has opened. */
  open(opening: OpeningRecord): void {
    this.#openings.push(opening);
    this.#timer ??= setTimeout(() => this.flush(), FLUSH_MS);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const openings = this.#openings;
    this.#openings = [];
    for (const opening of openings) opening.writeOpening();
    const batch = this.#batch;
    this.#batch = [];
    if (batch.length > 0) this.#send(batch);
  }
}
