import type { AccessRecord } from './access-log.ts';

const FLUSH_MS = 50;
/** A batch this long leaves at once. */
const BATCH_SIZE = 2_000;

/** Access records on their way to the main thread, gathered for up to 50 ms. */
export class Records {
  readonly #send: (records: readonly AccessRecord[]) => void;
  #batch: AccessRecord[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(send: (records: readonly AccessRecord[]) => void) {
    this.#send = send;
  }

  add(record: AccessRecord): void {
    this.#batch.push(record);
    if (this.#batch.length >= BATCH_SIZE) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), FLUSH_MS);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const batch = this.#batch;
    this.#batch = [];
    if (batch.length > 0) this.#send(batch);
  }
}
