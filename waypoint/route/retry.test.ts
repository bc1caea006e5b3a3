import { describe, expect, test } from 'vitest';
import type { RetryPolicy } from '../model.ts';
import { type AttemptOutcome, decideRetry, parseRetryAfter, type RetryFacts } from './retry.ts';

const SAFE: RetryPolicy = {
  attempts: 1,
  on: { connectFailure: true, reset: false, statusCodes: [] },
  perTryTimeoutMs: 0,
  backoffMs: 0,
  maxBackoffMs: 250,
};
const EXPLICIT: RetryPolicy = {
  ...SAFE,
  attempts: 3,
  on: { connectFailure: true, reset: true, statusCodes: [500, 503] },
};
const BUDGET = { percent: 20, minConcurrent: 3 };
const FACTS: RetryFacts = {
  method: 'GET',
  isReplayable: true,
  isAnswered: false,
  remainingMs: Number.POSITIVE_INFINITY,
  activeRequests: 1,
  activeRetries: 0,
  draw: () => 0,
};
const STATUS_500: AttemptOutcome = { kind: 'response', status: 500 };

describe('a request', () => {
  test.each<[string, RetryPolicy, AttemptOutcome, Partial<RetryFacts>, number, string]>([
    ['POST that had no connection', SAFE, { kind: 'connect-failure' }, { method: 'POST' }, 1, 'retry'],
    ['that was lost, without a retry stanza', SAFE, { kind: 'reset' }, {}, 1, 'not-retriable'],
    ['whose idle connection was being closed', SAFE, { kind: 'stale' }, {}, 1, 'retry'],
    ['PUT whose idle connection was being closed', SAFE, { kind: 'stale' }, { method: 'PUT' }, 1, 'retry'],
    [
      'POST whose idle connection was being closed',
      EXPLICIT,
      { kind: 'stale' },
      { method: 'POST' },
      1,
      'not-safe-to-repeat',
    ],
    ['that was lost', EXPLICIT, { kind: 'reset' }, {}, 1, 'retry'],
    ['POST that was lost', EXPLICIT, { kind: 'reset' }, { method: 'POST' }, 1, 'not-safe-to-repeat'],
    ['PATCH that was lost', EXPLICIT, { kind: 'reset' }, { method: 'PATCH' }, 1, 'not-safe-to-repeat'],
    ['DELETE that was lost', EXPLICIT, { kind: 'reset' }, { method: 'DELETE' }, 1, 'retry'],
    ['that took too long', EXPLICIT, { kind: 'attempt-timeout' }, {}, 1, 'retry'],
    [
      'POST that took too long',
      EXPLICIT,
      { kind: 'attempt-timeout' },
      { method: 'POST' },
      1,
      'not-safe-to-repeat',
    ],
    ['POST with a status that is named', EXPLICIT, STATUS_500, { method: 'POST' }, 1, 'retry'],
    ['with a status that is not', EXPLICIT, { kind: 'response', status: 502 }, {}, 1, 'not-retriable'],
    ['that went well', EXPLICIT, { kind: 'response', status: 200 }, {}, 1, 'not-retriable'],
    ['without an endpoint', EXPLICIT, { kind: 'no-endpoint' }, {}, 1, 'not-retriable'],
    ['whose answer has begun', EXPLICIT, { kind: 'reset' }, { isAnswered: true }, 1, 'answer-started'],
    ['whose body is gone', EXPLICIT, STATUS_500, { isReplayable: false }, 1, 'body-not-kept'],
    ['at the last attempt but one', EXPLICIT, STATUS_500, {}, 3, 'retry'],
    ['at the last attempt', EXPLICIT, STATUS_500, {}, 4, 'attempts-exhausted'],
    ['without time for a pause', EXPLICIT, STATUS_500, { remainingMs: 0 }, 1, 'deadline'],
    [
      'with three retries under way',
      EXPLICIT,
      STATUS_500,
      { activeRetries: 3, activeRequests: 10 },
      1,
      'over-budget',
    ],
    ['with three of twenty', EXPLICIT, STATUS_500, { activeRetries: 3, activeRequests: 20 }, 1, 'retry'],
    ['with four of twenty', EXPLICIT, STATUS_500, { activeRetries: 4, activeRequests: 20 }, 1, 'over-budget'],
  ])('%s', (_, policy, outcome, facts, tries, wanted) => {
    const decision = decideRetry(policy, tries, outcome, { ...FACTS, ...facts }, BUDGET);
    expect(decision.kind === 'retry' ? 'retry' : decision.reason).toBe(wanted);
  });

  test('that was tried often enough is flagged, one that nobody wanted to retry is not', () => {
    expect(decideRetry(EXPLICIT, 4, STATUS_500, FACTS, BUDGET)).toMatchObject({ flag: 'URX' });
    const over = { ...FACTS, activeRetries: 3 };
    expect(decideRetry(EXPLICIT, 1, STATUS_500, over, BUDGET)).toMatchObject({ flag: 'UO' });
    expect(decideRetry(SAFE, 1, STATUS_500, FACTS, BUDGET)).not.toHaveProperty('flag');
  });
});

describe('the pause', () => {
  function range(policy: Partial<RetryPolicy>, tries: number): readonly [number, number] {
    const pause = (draw: number): number => {
      const decision = decideRetry(
        { ...EXPLICIT, attempts: 100, ...policy },
        tries,
        STATUS_500,
        { ...FACTS, draw: () => draw },
        BUDGET,
      );
      return decision.kind === 'retry' ? decision.pauseMs : -1;
    };
    return [pause(0), pause(1)];
  }

  test('is drawn from nothing on and grows up to ten times its base', () => {
    expect([1, 2, 3, 4, 5].map((tries) => range({}, tries))).toEqual([
      [0, 50],
      [0, 100],
      [0, 200],
      [0, 250],
      [0, 250],
    ]);
  });

  test('is never shorter than a backoff', () => {
    expect([1, 2, 9].map((tries) => range({ backoffMs: 100, maxBackoffMs: 1000 }, tries))).toEqual([
      [100, 200],
      [100, 400],
      [100, 1000],
    ]);
  });

  test.each([
    [2000, Number.POSITIVE_INFINITY, 2000],
    [2000, 1000, 0],
    [400_000, Number.POSITIVE_INFINITY, 0],
  ])('of Retry-After %d ms with %d ms left is %d', (retryAfterMs, remainingMs, pauseMs) => {
    const outcome = { kind: 'response', status: 503, retryAfterMs } as const;
    expect(decideRetry(EXPLICIT, 1, outcome, { ...FACTS, remainingMs }, BUDGET)).toMatchObject({ pauseMs });
  });

  test.each([
    ['2', 2000],
    ['Wed, 21 Oct 2026 07:28:05 GMT', 5000],
    ['Wed, 21 Oct 2026 07:27:00 GMT', 0],
    ['soon', undefined],
    ['-1', undefined],
    ['1.5', undefined],
  ])('of the header %s is %s', (value, wanted) => {
    expect(parseRetryAfter(value, Date.UTC(2026, 9, 21, 7, 28))).toBe(wanted);
  });
});
