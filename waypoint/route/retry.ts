import type { Cluster, RetryPolicy } from '../model.ts';
import type { ResponseFlag } from '../request-record.ts';

/** How an attempt ended. */
export type AttemptOutcome =
  /** No connection, or the stream was refused: no application has seen anything of it. */
  | { readonly kind: 'connect-failure' }
  /** A policy at the destination does not let the caller in. */
  | { readonly kind: 'denied' }
  /** A connection that had been idle was closed as the request went out: nothing came back. */
  | { readonly kind: 'stale' }
  /** There was no endpoint to try. */
  | { readonly kind: 'no-endpoint' }
  /** The connection was lost, or the answer made no sense, before the head of an answer. */
  | { readonly kind: 'reset' }
  /** No answer within the time of one try. */
  | { readonly kind: 'attempt-timeout' }
  | {
      readonly kind: 'response';
      readonly status: number;
      /** Of `Retry-After`, in ms from now. */
      readonly retryAfterMs?: number;
    };

/** What else a retry hangs on. */
export interface RetryFacts {
  readonly method: string;
  /** The whole body is still there, or there is none. */
  readonly isReplayable: boolean;
  /** A final answer's head has gone downstream: it cannot be taken back. */
  readonly isAnswered: boolean;
  /** Until the request's timeout, in ms; infinite without. */
  readonly remainingMs: number;
  /** Requests in flight to the cluster, this one included, and retries among them, this one (if it is one) not. */
  readonly activeRequests: number;
  readonly activeRetries: number;
  /** Random, from 0 up to 1. */
  readonly draw: () => number;
}

/** What to do after an attempt. */
export type RetryDecision =
  /** Again after a pause, at another endpoint if there is one. */
  | { readonly kind: 'retry'; readonly pauseMs: number; readonly excludesHost: true }
  /** What came is the answer. `flag` is for the record, and only there when a retry was wanted. */
  | { readonly kind: 'give-up'; readonly reason: GiveUpReason; readonly flag?: ResponseFlag };

export type GiveUpReason =
  /** It is not to be tried again: a good answer, or one that no policy names. */
  | 'not-retriable'
  | 'answer-started'
  | 'not-safe-to-repeat'
  | 'body-not-kept'
  | 'attempts-exhausted'
  | 'over-budget'
  | 'deadline';

/** RFC 9110, 9.2.2: sent twice they do what they do sent once. */
const SAFE_TO_REPEAT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);

/** Envoy's pause where a route does not say, in ms. */
const DEFAULT_BACKOFF_MS = 25;

/**
 * Whether a request is tried again. Connections that failed are safe for every request; what was lost on the way only for what is
 * safe to repeat; a status that the policy names for all. Always within attempts, time and the cluster's budget.
 *
 * An application that closes an idle connection at the moment at which a request goes out on it is a failure to connect that shows
 * late: what is safe to repeat is tried again as if it were one (RFC 9112, 9.3.1; RFC 9110, 9.2.2), on a new connection. Without that
 * nobody who keeps connections can help answering 503 now and then.
 * @param tries that were made so far, at least 1
 */
export function decideRetry(
  policy: RetryPolicy,
  tries: number,
  outcome: AttemptOutcome,
  facts: RetryFacts,
  budget: Cluster['retryBudget'],
): RetryDecision {
  if (!isRetriable(policy, outcome)) return { kind: 'give-up', reason: 'not-retriable' };
  if (facts.isAnswered) return { kind: 'give-up', reason: 'answer-started' };
  const isLost = LOST.has(outcome.kind);
  if (isLost && !SAFE_TO_REPEAT.has(facts.method)) return { kind: 'give-up', reason: 'not-safe-to-repeat' };
  if (!facts.isReplayable) return { kind: 'give-up', reason: 'body-not-kept' };
  if (tries > policy.attempts) return { kind: 'give-up', reason: 'attempts-exhausted', flag: 'URX' };
  const pauseMs = pauseBefore(policy, tries, outcome, facts);
  if (pauseMs >= facts.remainingMs) return { kind: 'give-up', reason: 'deadline' };
  const allowed = Math.max(budget.minConcurrent, (facts.activeRequests * budget.percent) / 100);
  if (facts.activeRetries >= allowed) return { kind: 'give-up', reason: 'over-budget', flag: 'UO' };
  return { kind: 'retry', pauseMs, excludesHost: true };
}

/** The application may have acted on the request. */
const LOST: ReadonlySet<AttemptOutcome['kind']> = new Set(['reset', 'attempt-timeout', 'stale']);

function isRetriable({ on }: RetryPolicy, outcome: AttemptOutcome): boolean {
  switch (outcome.kind) {
    case 'connect-failure':
      return on.connectFailure;
    case 'stale':
      return on.connectFailure || on.reset;
    case 'reset':
    case 'attempt-timeout':
      return on.reset;
    case 'response':
      return on.statusCodes.includes(outcome.status);
    case 'denied':
    case 'no-endpoint':
      return false;
  }
}

/**
 * Doubles from try to try, and is drawn: without a backoff from 0, with one from that on, as it must not be shorter. A
 * `Retry-After` that fits into the time is waited for.
 */
function pauseBefore(policy: RetryPolicy, tries: number, outcome: AttemptOutcome, facts: RetryFacts): number {
  const base = policy.backoffMs === 0 ? DEFAULT_BACKOFF_MS : policy.backoffMs;
  const most = Math.max(Math.min(base * 2 ** Math.min(tries, 20), policy.maxBackoffMs), base);
  const least = policy.backoffMs;
  const pauseMs = least + facts.draw() * (most - least);
  const wanted = outcome.kind === 'response' ? (outcome.retryAfterMs ?? 0) : 0;
  return wanted > pauseMs && wanted < facts.remainingMs && wanted <= MAX_RETRY_AFTER_MS ? wanted : pauseMs;
}

/** Envoy's limit; a longer `Retry-After` is not waited for. */
const MAX_RETRY_AFTER_MS = 300_000;

/** `Retry-After` in ms: seconds, or a date (RFC 9110, 10.2.3); undefined for anything else. */
export function parseRetryAfter(value: string, nowMs: number): number | undefined {
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000;
  if (!/^[A-Z][a-z]{2,8},? .* GMT$/.test(value)) return undefined;
  const atMs = Date.parse(value);
  return Number.isNaN(atMs) ? undefined : Math.max(0, atMs - nowMs);
}
