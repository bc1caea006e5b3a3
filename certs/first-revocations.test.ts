import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { FirstRevocations } from './first-revocations.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function open(): { readonly first: FirstRevocations; readonly ends: boolean[] } {
  const ends: boolean[] = [];
  return { first: new FirstRevocations(5000, (isKnown) => ends.push(isKnown)), ends };
}

test('the list ends the wait, once, whatever else is there', () => {
  const { first, ends } = open();
  first.told();
  first.told();
  first.setConnected(true);
  first.hasRest();
  vi.advanceTimersByTime(60_000);
  expect([first.isOver, ends]).toEqual([true, [true]]);
});

test('a control plane that says all but that is waited for five seconds', () => {
  const { first, ends } = open();
  first.setConnected(true);
  first.hasRest();
  vi.advanceTimersByTime(4999);
  expect(first.isOver).toBe(false);
  vi.advanceTimersByTime(1);
  expect([first.isOver, ends]).toEqual([true, [false]]);
});

test('while the control plane is away, or has not said the rest, it is waited for without an end', () => {
  const { first, ends } = open();
  first.setConnected(true);
  vi.advanceTimersByTime(60_000);
  first.hasRest();
  vi.advanceTimersByTime(3000);
  first.setConnected(false);
  vi.advanceTimersByTime(600_000);
  expect([first.isOver, ends]).toEqual([false, []]);
  first.setConnected(true);
  vi.advanceTimersByTime(4999);
  expect(first.isOver).toBe(false);
});
