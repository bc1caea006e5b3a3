import type { Svid } from './svid.ts';

const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 150_000;

/**
 * When an SVID is to be renewed, in milliseconds since the epoch: at half of its life. One that arrives later than
 * that (a clock that is ahead, a signer near its end) gets a tenth of its life more, so that it is not asked for
 * without a pause.
 */
export function renewalTime(svid: Svid, nowMs: number): number {
  const life = svid.notAfterMs - svid.notBeforeMs;
  return Math.max(svid.notBeforeMs + life / 2, nowMs + Math.max(life / 10, FIRST_RETRY_MS));
}

/**
 * How long to wait after a failure, in milliseconds: a second, doubling, give or take a fifth, never above 150 s.
 * While an SVID is still valid never above a quarter of what is left of it, and after its end never above a quarter of
 * its life: short-lived ones are asked for often enough not to run out.
 */
export function retryDelay(failure: {
  /** Failures in a row, this one included. */
  readonly attempts: number;
  /** The last SVID, valid or not. */
  readonly svid: Svid | undefined;
  readonly nowMs: number;
  /** At least 0, below 1. */
  readonly random: number;
}): number {
  const { attempts, svid, nowMs, random } = failure;
  const spread = 0.8 + 0.4 * random;
  const delay = FIRST_RETRY_MS * 2 ** Math.min(attempts - 1, 20) * spread;
  return Math.min(delay, LONGEST_RETRY_MS, svid === undefined ? LONGEST_RETRY_MS : patience(svid, nowMs));
}

function patience(svid: Svid, nowMs: number): number {
  const life = svid.notAfterMs - svid.notBeforeMs;
  const left = svid.notAfterMs - nowMs;
  const shortest = Math.min(FIRST_RETRY_MS, life / 100);
  return Math.max((left > 0 ? left : life) / 4, shortest);
}
