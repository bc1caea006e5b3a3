import fc from 'fast-check';
import { expect, test } from 'vitest';
import { leastOfWindows, type Point, slopeOf } from './slope.ts';

const line = (count: number, value: (at: number) => number): readonly Point[] =>
  Array.from({ length: count }, (_, at) => ({ at, value: value(at) }));

test('a line has its own slope, and surely so', () => {
  const slope = slopeOf([line(20, (at) => 100 + 3 * at)]);
  expect(slope).toEqual({ perMinute: 3, atLeast: 3, minutes: 19 });
});

test('single jumps do not count', () => {
  const slope = slopeOf([line(20, (at) => (at === 7 || at === 13 ? 1000 : 50))]);
  expect(slope?.perMinute).toBe(0);
});

test('a process that is replaced by a smaller one does not hide that both grow', () => {
  const both = [line(10, (at) => 100 + 2 * at), line(10, (at) => 40 + 2 * at)];
  expect(slopeOf(both)).toMatchObject({ perMinute: 2, atLeast: 2 });
});

test('two points grow, but nobody can say that they do for sure', () => {
  expect(slopeOf([line(2, (at) => at)])).toMatchObject({ perMinute: 1, atLeast: Number.NEGATIVE_INFINITY });
});

test('there is no slope without two points', () => {
  expect(slopeOf([])).toBeUndefined();
  expect(slopeOf([line(1, () => 5)])).toBeUndefined();
});

test('what is said for sure is never more than the slope, and noise around a level is not said to grow', () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 10, maxLength: 40 }),
      (noise) => {
        const slope = slopeOf([noise.map((value, at) => ({ at, value: at * 5 + value }))]);
        expect(slope?.atLeast).toBeLessThanOrEqual(slope?.perMinute ?? Number.NaN);
        expect(slope?.perMinute).toBeGreaterThan(4);
        expect(slope?.perMinute).toBeLessThan(6);
      },
    ),
  );
});

test('of each window the least value counts', () => {
  const points = [0.1, 0.2, 1.1, 1.9, 3.5].map((at, index) => ({ at, value: [9, 4, 7, 8, 6][index] ?? 0 }));
  expect(leastOfWindows(points, 1)).toEqual([
    { at: 0.5, value: 4 },
    { at: 1.5, value: 7 },
    { at: 3.5, value: 6 },
  ]);
});
