import { expect, test } from 'vitest';
import { judge, type Measure, type Sample } from './judge.ts';

const OPTIONS = { warmUpMinutes: 2, windowMinutes: 0.5 };

/** A process's life from a minute on, a sample each half minute. */
function life(
  value: (minute: number) => number,
  { pid = 1, from = 0, minutes = 20, measure = 'descriptors' as Measure } = {},
): readonly Sample[] {
  return Array.from({ length: minutes * 2 }, (_, index) => {
    const at = from + index / 2;
    return { at, role: 'ztunnel-n1', pid, measure, value: value(at - from) };
  });
}

const verdicts = (samples: readonly Sample[]): readonly boolean[] =>
  judge(samples, OPTIONS).map(({ isOk }) => isOk);

test('what stays as it is, is well', () => {
  expect(verdicts(life(() => 64))).toEqual([true]);
});

test('one descriptor more a minute is found', () => {
  expect(verdicts(life((minute) => 64 + minute))).toEqual([false]);
});

test('it is found as well where the process is replaced again and again', () => {
  const lives = [1, 2, 3, 4].flatMap((pid) =>
    life((minute) => 64 + minute, { pid, from: pid * 10, minutes: 10 }),
  );
  expect(verdicts(lives)).toEqual([false]);
});

test('what a process takes in its first minutes does not count', () => {
  expect(verdicts(life((minute) => (minute < 2 ? 60 + 20 * minute : 100)))).toEqual([true]);
});

test('what comes and goes does not count', () => {
  expect(verdicts(life((minute) => 64 + (Math.floor(minute * 2) % 3) * 10))).toEqual([true]);
});

test('what grows for sure, but by less than counts in all, is well', () => {
  const heap = life((minute) => 40 + 0.15 * minute, { measure: 'heap' });
  expect(verdicts(heap)).toEqual([true]);
  expect(verdicts(life((minute) => 40 + 0.5 * minute, { measure: 'heap' }))).toEqual([false]);
});

test('a process that lived no longer than the warm-up says nothing', () => {
  expect(verdicts(life((minute) => 64 + minute, { minutes: 2 }))).toEqual([]);
});
