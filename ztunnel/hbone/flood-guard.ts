import { Http2Error } from './error.ts';

/** How many of something a peer may send at once, and a second. */
export interface Allowance {
  readonly burst: number;
  readonly perSecond: number;
}

/**
 * Frames that cost their sender less than their receiver: PING, SETTINGS, PRIORITY, CONTINUATION, empty DATA, unknown types.
 * A peer that behaves sends a few a minute.
 */
export const CHEAP_FRAMES: Allowance = { burst: 2_000, perSecond: 200 };

/**
 * Streams that are reset before they have ended, or refused. A tunnel carries the resets of all its applications, so the allowance is
 * far above that of a web server, and far below a rapid-reset attack (CVE-2023-44487).
 */
export const RESETS: Allowance = { burst: 10_000, perSecond: 1_000 };

/** Resets of streams that are over: how a stock peer says that it has read enough, once a connection. */
export const LATE_RESETS: Allowance = { burst: 50_000, perSecond: 50_000 };

/**
 * Changes of windows. One a frame of ours is usual for peers with small windows, which at a gigabyte a second are tens of thousands.
 */
export const WINDOW_UPDATES: Allowance = { burst: 50_000, perSecond: 50_000 };

/** A bucket of tokens. */
export class FloodGuard {
  readonly #what: string;
  readonly #allowance: Allowance;
  #tokens: number;
  #filledAt = performance.now();

  /** @param what is counted, for the message */
  constructor(what: string, allowance: Allowance) {
    this.#what = what;
    this.#allowance = allowance;
    this.#tokens = allowance.burst;
  }

  /** @throws Http2Error ENHANCE_YOUR_CALM when there were too many */
  count(): void {
    if (--this.#tokens >= 0) return;
    const now = performance.now();
    const refill = ((now - this.#filledAt) / 1000) * this.#allowance.perSecond;
    this.#filledAt = now;
    this.#tokens = Math.min(this.#allowance.burst, this.#tokens + refill);
    if (this.#tokens < 0) throw new Http2Error(`too many ${this.#what}`, 'ENHANCE_YOUR_CALM');
  }
}
