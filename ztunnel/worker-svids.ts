import { formatIdentity, type Identity } from '#certs/identity.ts';
import type { Svid } from '#certs/svid.ts';

interface Waiter {
  readonly identity: string;
  readonly resolve: (svid: Svid | undefined) => void;
}

/** The SVIDs that a byte worker has been given, by identity. */
export class WorkerSvids {
  readonly #ask: (identity: string) => void;
  readonly #svids = new Map<string, Svid>();
  readonly #waiters = new Set<Waiter>();

  /** @param ask says that an identity's SVID is needed */
  constructor(ask: (identity: string) => void) {
    this.#ask = ask;
  }

  /** A new or renewed one. */
  set(svid: Svid): void {
    const identity = formatIdentity(svid.identity);
    this.#svids.set(identity, svid);
    for (const waiter of [...this.#waiters]) if (waiter.identity === identity) waiter.resolve(svid);
  }

  forget(identity: string): void {
    this.#svids.delete(identity);
  }

  /** The SVID, while it is valid; waits for it, and asks, when it is not there. Undefined when it has not come in time. */
  until(identity: Identity, timeoutMs: number): Promise<Svid | undefined> {
    const name = formatIdentity(identity);
    const svid = this.#svids.get(name);
    if (svid !== undefined && svid.notAfterMs > Date.now()) return Promise.resolve(svid);
    this.#ask(name);
    const { promise, resolve } = Promise.withResolvers<Svid | undefined>();
    const settle = (value: Svid | undefined): void => {
      clearTimeout(timer);
      this.#waiters.delete(waiter);
      resolve(value);
    };
    const timer = setTimeout(() => settle(undefined), timeoutMs);
    const waiter: Waiter = { identity: name, resolve: settle };
    this.#waiters.add(waiter);
    return promise;
  }
}
