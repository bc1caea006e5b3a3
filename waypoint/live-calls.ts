import type { Holder, Ledger } from './memory/ledger.ts';

/** A request, or connection, that is under way; it holds memory. */
export interface LiveCall extends Holder {
  /** Asks again whether its caller may, and ends it if not. */
  readonly recheck: () => void;
}

/** Changes that come together are looked at together. */
const GATHER_MS = 5;
/** Calls that are looked at before requests get their turn again. */
const SLICE = 1_000;

/** All that is under way: looked at again when policies change, as nobody is let in for ever. */
export class LiveCalls {
  readonly #ledger: Ledger;
  readonly #all = new Set<LiveCall>();
  #timer: NodeJS.Timeout | undefined;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  get size(): number {
    return this.#all.size;
  }

  add(call: LiveCall): void {
    this.#all.add(call);
    this.#ledger.add(call);
  }

  /** It is over. Harmless for one that is not there. */
  delete(call: LiveCall): void {
    this.#all.delete(call);
    this.#ledger.delete(call);
  }

  /** Policies, or whom they are for, have changed. */
  recheck(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#look([...this.#all], 0);
    }, GATHER_MS).unref();
  }

  #look(calls: readonly LiveCall[], from: number): void {
    for (const call of calls.slice(from, from + SLICE)) if (this.#all.has(call)) call.recheck();
    if (from + SLICE < calls.length) setImmediate(() => this.#look(calls, from + SLICE));
  }
}
