import { formatIdentity, type Identity } from './identity.ts';
import { renewalTime, retryDelay } from './renewal.ts';
import { isRevoked } from './revoked.ts';
import type { Svid } from './svid.ts';

/** Runs something once, that much later; calling what it returns takes it back. */
type Schedule = (delayMs: number, run: () => void) => () => void;

export interface SvidManagerOptions {
  /** Gets a new SVID; its failure is retried. */
  readonly request: (identity: Identity, signal: AbortSignal) => Promise<Svid>;
  /** Told of each SVID, first or renewed. */
  readonly onSvid: (svid: Svid) => void;
  /** Told of each failure, and after how many milliseconds it is tried again. */
  readonly onError: (identity: Identity, error: Error, retryInMs: number) => void;
  /** Milliseconds since the epoch; default: the clock. */
  readonly now?: () => number;
  /** Default: a timer that does not keep the process alive. */
  readonly schedule?: Schedule;
  /** At least 0, below 1; default: Math.random. */
  readonly random?: () => number;
  /** Requests under way at a time. Default 8. */
  readonly maxConcurrent?: number;
}

/** An identity's certificate as admin shows it. */
export interface CertificateState {
  readonly identity: Identity;
  /** `Available`, `Initializing`, or `Unavailable: <why>`. */
  readonly state: string;
  /** The last one that came, although it may have expired. */
  readonly svid?: Svid;
}

type SvidErrorCode = 'NOT_WANTED' | 'TIMED_OUT' | 'FORGOTTEN';

/** Thrown to those who wait for an SVID that does not come. */
export class SvidError extends Error {
  override readonly name = 'SvidError';
  readonly code: SvidErrorCode;

  constructor(message: string, code: SvidErrorCode) {
    super(message);
    this.code = code;
  }
}

/** Keeps one valid SVID for each wanted identity: asks, renews at half of its life, keeps the old one on failure. */
export interface SvidManager {
  /** Begins to keep an SVID for the identity; again: nothing. */
  want(identity: Identity): void;
  /** Ends that; who waits for it is refused. */
  forget(identity: Identity): void;
  /** The identity's SVID, if there is one and it has not expired. */
  get(identity: Identity): Svid | undefined;
  /**
   * The identity's SVID, as soon as there is a valid one. Who is waited for is asked for first.
   * @throws SvidError
   */
  waitFor(identity: Identity, timeoutMs: number): Promise<Svid>;
  /** Tries again now what failed before: the authority may be back. */
  retryNow(): void;
  /** Asks anew for those that are revoked, and for what failed before. */
  replaceRevoked(): void;
  /**
   * Has every SVID verify its peers with these roots (PEM), those that are here and those that come; undefined: those that come
   * bring their own again.
   */
  setRoots(rootsPem: string | undefined): void;
  /** What is kept, ordered by identity. */
  list(): readonly CertificateState[];
  /** Ends everything; who waits is refused. */
  close(): void;
}

/** Makes a manager; the maker closes it. */
export function createSvidManager(options: SvidManagerOptions): SvidManager {
  return new Manager(options);
}

type Phase =
  | { readonly kind: 'queued' }
  | { readonly kind: 'requesting'; readonly abort: AbortController }
  | { readonly kind: 'resting'; readonly cancel: () => void };

interface Entry {
  readonly identity: Identity;
  readonly waiting: Set<{ readonly resolve: (svid: Svid) => void; readonly reject: (error: Error) => void }>;
  phase: Phase;
  svid: Svid | undefined;
  /** Failures since the last success. */
  failures: number;
  lastError: string | undefined;
}

const MAX_CONCURRENT = 8;
/** Timers run on awake time: looking at the clock once a minute finds out about a machine that slept. */
const LONGEST_REST_MS = 60_000;

class Manager implements SvidManager {
  readonly #options: SvidManagerOptions;
  readonly #now: () => number;
  readonly #schedule: Schedule;
  readonly #entries = new Map<string, Entry>();
  #requesting = 0;
  /** Instead of those that come with a certificate. */
  #roots: string | undefined;

  constructor(options: SvidManagerOptions) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#schedule = options.schedule ?? unreferencedTimer;
  }

  want(identity: Identity): void {
    const key = formatIdentity(identity);
    if (this.#entries.has(key)) return;
    this.#entries.set(key, {
      identity,
      waiting: new Set(),
      phase: { kind: 'queued' },
      svid: undefined,
      failures: 0,
      lastError: undefined,
    });
    this.#fill();
  }

  forget(identity: Identity): void {
    const key = formatIdentity(identity);
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    if (entry.phase.kind === 'resting') entry.phase.cancel();
    if (entry.phase.kind === 'requesting') entry.phase.abort.abort();
    for (const { reject } of entry.waiting)
      reject(new SvidError(`${key} is no longer wanted here`, 'FORGOTTEN'));
  }

  get(identity: Identity): Svid | undefined {
    return this.#valid(this.#entries.get(formatIdentity(identity)));
  }

  async waitFor(identity: Identity, timeoutMs: number): Promise<Svid> {
    const key = formatIdentity(identity);
    const entry = this.#entries.get(key);
    if (entry === undefined) throw new SvidError(`${key} is not an identity of this node`, 'NOT_WANTED');
    const svid = this.#valid(entry);
    if (svid !== undefined) return svid;

    const { promise, resolve, reject } = Promise.withResolvers<Svid>();
    const waiter = { resolve, reject };
    entry.waiting.add(waiter);
    const cancel = this.#schedule(timeoutMs, () => {
      const why = entry.lastError ?? 'the authority has not answered yet';
      reject(new SvidError(`no certificate for ${key} in ${timeoutMs} ms: ${why}`, 'TIMED_OUT'));
    });
    try {
      return await promise;
    } finally {
      cancel();
      entry.waiting.delete(waiter);
    }
  }

  retryNow(): void {
    for (const entry of this.#entries.values()) {
      if (entry.phase.kind !== 'resting' || entry.failures === 0) continue;
      entry.phase.cancel();
      entry.phase = { kind: 'queued' };
    }
    this.#fill();
  }

  replaceRevoked(): void {
    for (const entry of this.#entries.values()) {
      if (entry.phase.kind !== 'resting' || entry.svid === undefined || !isRevoked(entry.svid)) continue;
      entry.phase.cancel();
      entry.phase = { kind: 'queued' };
    }
    this.retryNow();
  }

  setRoots(rootsPem: string | undefined): void {
    this.#roots = rootsPem;
    if (rootsPem === undefined) return;
    for (const entry of this.#entries.values()) {
      if (entry.svid === undefined || entry.svid.rootsPem === rootsPem) continue;
      entry.svid = { ...entry.svid, rootsPem };
      this.#options.onSvid(entry.svid);
    }
  }

  list(): readonly CertificateState[] {
    return [...this.#entries]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, entry]) => ({
        identity: entry.identity,
        state: this.#stateOf(entry),
        ...(entry.svid !== undefined && { svid: entry.svid }),
      }));
  }

  close(): void {
    for (const { identity } of [...this.#entries.values()]) this.forget(identity);
  }

  /** Starts requests while there is room: first those that somebody waits for. */
  #fill(): void {
    const limit = this.#options.maxConcurrent ?? MAX_CONCURRENT;
    while (this.#requesting < limit) {
      const queued = [...this.#entries.values()].filter(({ phase }) => phase.kind === 'queued');
      const next = queued.find(({ waiting }) => waiting.size > 0) ?? queued[0];
      if (next === undefined) return;
      this.#start(next);
    }
  }

  #start(entry: Entry): void {
    const abort = new AbortController();
    entry.phase = { kind: 'requesting', abort };
    this.#requesting += 1;
    this.#options
      .request(entry.identity, abort.signal)
      .then(
        (svid) => this.#succeeded(entry, svid),
        (error: unknown) => this.#failed(entry, error instanceof Error ? error : new Error(String(error))),
      )
      .finally(() => {
        this.#requesting -= 1;
        this.#fill();
      });
  }

  #succeeded(entry: Entry, answer: Svid): void {
    if (this.#isForgotten(entry)) return;
    const svid = this.#roots === undefined ? answer : { ...answer, rootsPem: this.#roots };
    entry.svid = svid;
    entry.failures = 0;
    entry.lastError = undefined;
    this.#restUntil(entry, renewalTime(svid, this.#now()));
    if (this.#valid(entry) !== undefined) for (const { resolve } of entry.waiting) resolve(svid);
    this.#options.onSvid(svid);
  }

  #failed(entry: Entry, error: Error): void {
    if (this.#isForgotten(entry)) return;
    entry.failures += 1;
    entry.lastError = error.message;
    const nowMs = this.#now();
    const random = (this.#options.random ?? Math.random)();
    const delayMs = retryDelay({ attempts: entry.failures, svid: entry.svid, nowMs, random });
    this.#restUntil(entry, nowMs + delayMs);
    this.#options.onError(entry.identity, error, delayMs);
  }

  #restUntil(entry: Entry, untilMs: number): void {
    const restMs = Math.min(Math.max(untilMs - this.#now(), 0), LONGEST_REST_MS);
    const cancel = this.#schedule(restMs, () => {
      if (this.#now() < untilMs) return this.#restUntil(entry, untilMs);
      entry.phase = { kind: 'queued' };
      this.#fill();
    });
    entry.phase = { kind: 'resting', cancel };
  }

  #isForgotten(entry: Entry): boolean {
    return this.#entries.get(formatIdentity(entry.identity)) !== entry;
  }

  #valid(entry: Entry | undefined): Svid | undefined {
    const svid = entry?.svid;
    return svid !== undefined && svid.notAfterMs > this.#now() && !isRevoked(svid) ? svid : undefined;
  }

  #stateOf(entry: Entry): string {
    if (this.#valid(entry) !== undefined) return 'Available';
    if (entry.svid !== undefined && isRevoked(entry.svid)) return 'Unavailable: the certificate is revoked';
    const why = entry.lastError ?? (entry.svid === undefined ? undefined : 'the certificate has expired');
    return why === undefined ? 'Initializing' : `Unavailable: ${why}`;
  }
}

function unreferencedTimer(delayMs: number, run: () => void): () => void {
  const timer = setTimeout(run, delayMs).unref();
  return () => clearTimeout(timer);
}
