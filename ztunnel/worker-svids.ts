import { formatIdentity, type Identity } from '#certs/identity.ts';
import { isIdentityRevoked, isRevoked } from '#certs/revoked.ts';
import type { Svid } from '#certs/svid.ts';

interface Waiter {
  readonly identity: string;
  readonly resolve: (svid: Svid | undefined) => void;
}

export interface WorkerSvidsOptions {
  /** An identity's SVID is needed. */
  readonly ask: (identity: string) => void;
  /** An SVID has expired without a successor, or been taken away. */
  readonly onLost: () => void;
}

/** What `until` ends with undefined for, of whom a connection is about. */
export function withoutSvid(identity: Identity, whose: 'source' | 'destination' | 'workload'): string {
  const name = formatIdentity(identity);
  return isIdentityRevoked(name) ? `${name} is revoked` : `no certificate for the ${whose} yet`;
}

/** Longest that a timer can wait. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The SVIDs that a byte worker has been given, by identity. */
export class WorkerSvids {
  readonly #options: WorkerSvidsOptions;
  readonly #svids = new Map<string, Svid>();
  readonly #waiters = new Set<Waiter>();
  /** For the next end of an SVID. */
  #timer: NodeJS.Timeout | undefined;

  constructor(options: WorkerSvidsOptions) {
    this.#options = options;
  }

  /** A new or renewed one. */
  set(svid: Svid): void {
    const identity = formatIdentity(svid.identity);
    this.#svids.set(identity, svid);
    for (const waiter of [...this.#waiters]) if (waiter.identity === identity) waiter.resolve(svid);
    this.#watch();
  }

  forget(identity: string): void {
    if (this.#svids.delete(identity)) this.#options.onLost();
  }

  /** The list of those that are revoked has changed. */
  noteRevoked(): void {
    for (const waiter of [...this.#waiters])
      if (isIdentityRevoked(waiter.identity)) waiter.resolve(undefined);
    this.#options.onLost();
  }

  /** The SVID, if it is there and valid now. */
  current(identity: string): Svid | undefined {
    const svid = this.#svids.get(identity);
    return svid !== undefined && svid.notAfterMs > Date.now() && !isRevoked(svid) ? svid : undefined;
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  /**
   * The SVID, while it is valid; waits for it, and asks, when it is not there. Undefined when it has not come in time, and at
   * once for an identity that is revoked, as that gets none.
   */
  until(identity: Identity, timeoutMs: number): Promise<Svid | undefined> {
    const name = formatIdentity(identity);
    const svid = this.current(name);
    if (svid !== undefined || isIdentityRevoked(name)) return Promise.resolve(svid);
    this.#options.ask(name);
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

  /** Wakes up when the first of those that are valid ends. */
  #watch(): void {
    clearTimeout(this.#timer);
    const now = Date.now();
    let next = Number.POSITIVE_INFINITY;
    for (const { notAfterMs } of this.#svids.values())
      if (notAfterMs > now && notAfterMs < next) next = notAfterMs;
    if (next === Number.POSITIVE_INFINITY) return;
    const wake = (): void => {
      if (next <= Date.now()) this.#options.onLost();
      this.#watch();
    };
    this.#timer = setTimeout(wake, Math.min(next - now, MAX_TIMER_MS)).unref();
  }
}
