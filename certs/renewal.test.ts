import fc from 'fast-check';
import { expect, test } from 'vitest';
import { renewalTime, retryDelay } from './renewal.ts';
import type { Svid } from './svid.ts';

const HOUR = 3_600_000;

function svid(notBeforeMs: number, notAfterMs: number): Svid {
  const identity = { trustDomain: 'cluster.local', namespace: 'a', serviceAccount: 'b' };
  const text = { privateKeyPem: '', certificateChainPem: '', rootsPem: '', serial: '01' };
  return { identity, ...text, notBeforeMs, notAfterMs };
}

test('an SVID is renewed at half of its life', () => {
  expect(renewalTime(svid(0, 24 * HOUR), 120_000)).toBe(12 * HOUR);
});

test.each([
  { when: 'it comes late', nowMs: 20 * HOUR, at: 22.4 * HOUR },
  { when: 'it has already expired', nowMs: 100 * HOUR, at: 102.4 * HOUR },
])('an SVID is renewed after a pause when $when', ({ nowMs, at }) => {
  expect(renewalTime(svid(0, 24 * HOUR), nowMs)).toBe(at);
});

test('retries double from a second to 150 seconds', () => {
  const delays = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1000].map((attempts) =>
    retryDelay({ attempts, svid: undefined, nowMs: 0, random: 0.5 }),
  );
  expect(delays).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 150_000, 150_000]);
});

test.each([
  [0, 3200],
  [0.5, 4000],
  [0.999, 4798.4],
])('the third retry, at chance %d, comes after %d ms', (random, delayMs) => {
  expect(retryDelay({ attempts: 3, svid: undefined, nowMs: 0, random })).toBeCloseTo(delayMs, 6);
});

test('an SVID of ten seconds is asked for at least five times between half of its life and its end', () => {
  const short = svid(0, 10_000);
  const tries: number[] = [];
  for (let nowMs = 5000; nowMs < 10_000; ) {
    tries.push(nowMs);
    nowMs += retryDelay({ attempts: tries.length, svid: short, nowMs, random: 0.999 });
  }
  expect(tries.length).toBeGreaterThanOrEqual(5);
});

test('a retry always comes, and never in a busy loop', () => {
  const life = fc.integer({ min: 2000, max: 90 * 24 * HOUR });
  const moment = fc.double({ min: 0, max: 3, noNaN: true });
  const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  fc.assert(
    fc.property(
      life,
      moment,
      fc.integer({ min: 1, max: 10_000 }),
      chance,
      (lifeMs, part, attempts, random) => {
        const delay = retryDelay({ attempts, svid: svid(0, lifeMs), nowMs: lifeMs * part, random });
        expect(delay).toBeGreaterThanOrEqual(Math.min(800, lifeMs / 100));
        expect(delay).toBeLessThanOrEqual(150_000);
      },
    ),
  );
});
