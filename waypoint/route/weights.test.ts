import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { WeightedBackend } from '../model.ts';
import { backend } from './testing.ts';
import { SmoothWeights } from './weights.ts';

const OWNER = { table: 'ledger', name: 'r', origin: { object: 'HTTPRoute pay/ledger', rule: 0 } };

function counts(
  weights: SmoothWeights,
  backends: readonly WeightedBackend[],
  times: number,
): ReadonlyMap<string, number> {
  const found = new Map(backends.map(({ cluster }) => [cluster, 0]));
  for (let done = 0; done < times; done += 1) {
    const { cluster = '' } = weights.pick(backends, OWNER) ?? {};
    found.set(cluster, (found.get(cluster) ?? 0) + 1);
  }
  return found;
}

function split(...shares: readonly number[]): readonly WeightedBackend[] {
  return shares.map((weight, place) => backend(`v${place}`, weight));
}

describe('weights', () => {
  test.each([0, 0.13, 0.5, 0.999])('70/30/0 over 500 picks are exact, from the offset %d', (offset) => {
    const found = counts(new SmoothWeights(() => offset), split(70, 30, 0), 500);
    expect([...found.values()]).toEqual([350, 150, 0]);
  });

  test('are kept within one request at every moment', () => {
    fc.assert(
      fc.property(
        fc
          .array(fc.nat(100), { minLength: 1, maxLength: 6 })
          .filter((all) => all.some((weight) => weight > 0)),
        fc.integer({ min: 1, max: 400 }),
        (shares, times) => {
          const sum = shares.reduce((a, b) => a + b);
          const found = counts(new SmoothWeights(() => 0), split(...shares), times);
          for (const [place, weight] of shares.entries()) {
            const exact = (times * weight) / sum;
            expect(Math.abs((found.get(`v${place}`) ?? 0) - exact)).toBeLessThanOrEqual(1.0001);
          }
        },
      ),
    );
  });

  test('of 0 are never picked, nor any when all are', () => {
    const weights = new SmoothWeights(() => 0);
    expect(counts(weights, split(0, 1), 50).get('v0')).toBe(0);
    expect(weights.pick(split(0, 0), OWNER)).toBeUndefined();
    expect(weights.pick(split(0), OWNER)).toBeUndefined();
  });

  test('that are edited go on where they were', () => {
    const weights = new SmoothWeights(() => 0);
    let picked = 0;
    // Each edit comes after one pick: who starts afresh each time would always pick the first.
    for (let edit = 0; edit < 1000; edit += 1)
      if (weights.pick(split(70 + (edit % 2), 30 - (edit % 2)), OWNER)?.cluster === 'v1') picked += 1;
    expect(Math.abs(picked - 295)).toBeLessThanOrEqual(1);
  });

  test('that become 0 owe nothing when they come back', () => {
    const weights = new SmoothWeights(() => 0);
    counts(weights, split(50, 50), 7);
    expect(counts(weights, split(100, 0), 20).get('v1')).toBe(0);
    expect(Math.abs((counts(weights, split(50, 50), 10).get('v1') ?? 0) - 5)).toBeLessThanOrEqual(1);
  });

  test('are shared by the matches of a rule, not by rules', () => {
    const weights = new SmoothWeights(() => 0);
    const [one, two] = [split(50, 50), split(50, 50)];
    const first = weights.pick(one, { ...OWNER, name: 'match 0' })?.cluster;
    expect(weights.pick(two, { ...OWNER, name: 'match 1' })?.cluster).not.toBe(first);
    const other = { ...OWNER, origin: { object: 'HTTPRoute pay/ledger', rule: 1 } };
    expect(weights.pick(split(50, 50), other)?.cluster).toBe(first);
  });

  test('start elsewhere in each process', () => {
    const firsts = [0, 0.5].map(
      (offset) => new SmoothWeights(() => offset).pick(split(50, 50), OWNER)?.cluster,
    );
    expect(new Set(firsts).size).toBe(2);
  });
});
