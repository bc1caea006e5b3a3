/** How long callers may take, in ms. */
export interface DownstreamLimits {
  /** From the first byte of a head to its last. */
  readonly headMs: number;
  /** A request, its body or its answer may stand still for so long: Envoy's `stream_idle_timeout`. */
  readonly requestIdleMs: number;
  /** A connection without a request: Envoy's `idle_timeout`. */
  readonly connectionIdleMs: number;
  /** For the first bytes of what may be a protocol in which the server speaks first. */
  readonly detectMs: number;
  /** For a ClientHello. */
  readonly clientHelloMs: number;
  /** After an answer, for the rest of a body that nobody wanted. */
  readonly lingerMs: number;
}

/** What a waypoint runs with. */
export const DEFAULT_LIMITS: DownstreamLimits = {
  headMs: 30_000,
  requestIdleMs: 300_000,
  connectionIdleMs: 3_600_000,
  detectMs: 1_000,
  clientHelloMs: 15_000,
  lingerMs: 5_000,
};

/** Bytes of a request line with its headers, as Envoy limits them. */
export const MAX_HEAD_BYTES: number = 60 * 1024;

/** Something that is looked after while it is open. */
export interface Watched {
  /** Ends what has taken too long. @param nowMs of `performance.now()` */
  readonly checkPatience: (nowMs: number) => void;
}

/** Looks at everything that is open, again and again: a timer for all rather than one for each. */
export class Watch implements Disposable {
  readonly #open = new Set<Watched>();
  readonly #timer: NodeJS.Timeout;

  constructor(intervalMs: number) {
    this.#timer = setInterval(() => this.#look(), intervalMs).unref();
  }

  add(watched: Watched): void {
    this.#open.add(watched);
  }

  delete(watched: Watched): void {
    this.#open.delete(watched);
  }

  get size(): number {
    return this.#open.size;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const nowMs = performance.now();
    for (const watched of this.#open) watched.checkPatience(nowMs);
  }
}
