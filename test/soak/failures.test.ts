import { expect, test } from 'vitest';
import type { TrafficLine } from '#test/kit/programs/traffic-lines.ts';
import { GUARDED, ROUTED } from './bed.ts';
import { failuresOf, type Happened } from './failures.ts';
import { GAP_MS } from './happenings.ts';

const failed = (at: number, loop = 'web: plain new'): TrafficLine => ({
  loop,
  at,
  what: 'failed',
  error: 'reset',
});
const progress = (at: number, loop: string, ok: Readonly<Record<string, number>>): TrafficLine => ({
  ...{ loop, at, what: 'progress' },
  ok,
});
const restart: Happened = { name: 'restart', kind: 'planned', start: 1000, end: 5000 };
const kill: Happened = { name: 'kill', kind: 'killed', start: 1000, end: 5000 };

test('what fails during a restart, or with nothing going on, was not to fail', () => {
  expect(failuresOf([failed(2000), failed(500_000)], [restart])).toMatchObject([
    { during: 'restart', isExpected: false },
    { during: 'nothing', isExpected: false },
  ]);
});

test('what fails after a kill is its price for as long as is stated, and no longer', () => {
  const lines = [failed(2000), failed(5000 + GAP_MS), failed(5001 + GAP_MS)];
  expect(failuresOf(lines, [kill]).map(({ isExpected }) => isExpected)).toEqual([true, true, false]);
});

test('something that did not come off is a failure', () => {
  expect(failuresOf([], [{ ...restart, error: 'exit code 1' }])).toMatchObject([
    { what: 'not as configured', error: 'exit code 1', isExpected: false },
  ]);
});

const holds = (what: NonNullable<Happened['expected']>['what']): Happened => ({
  ...restart,
  expected: { since: 10_000, until: 20_000, what },
});

test('calls that a policy forbids are no failures, and one that is answered is', () => {
  const refused = [
    progress(10_100, GUARDED, { g: 5 }),
    failed(12_000, GUARDED),
    progress(19_000, GUARDED, { g: 5 }),
  ];
  expect(failuresOf(refused, [holds('denied')])).toEqual([]);
  const answered = [...refused, progress(19_500, GUARDED, { g: 6 })];
  expect(failuresOf(answered, [holds('denied')])).toMatchObject([{ error: '1 calls were answered' }]);
});

test('a call that a policy allows has to be answered', () => {
  expect(failuresOf([failed(12_000, GUARDED)], [holds('allowed')])).toHaveLength(1);
  expect(failuresOf([failed(9000, GUARDED)], [holds('allowed')])).toEqual([]);
});

test('those that a route names answer, and nobody else', () => {
  const lines = [progress(10_000, ROUTED, { v1: 7, v2: 7 }), progress(19_000, ROUTED, { v1: 30, v2: 7 })];
  expect(failuresOf(lines, [holds({ answeredBy: ['v1'] })])).toEqual([]);
  expect(failuresOf(lines, [holds({ answeredBy: ['v1', 'v2'] })])).toHaveLength(1);
  expect(failuresOf(lines, [holds({ answeredBy: ['v2'] })])).toHaveLength(1);
});
