import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { debounce } from './debounce.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test('it runs once, after it has been quiet', async () => {
  const runs = track();
  runs.touch();
  await vi.advanceTimersByTimeAsync(60);
  runs.touch();
  await vi.advanceTimersByTimeAsync(99);
  expect(runs.at).toEqual([]);
  await vi.advanceTimersByTimeAsync(1000);
  expect(runs.at).toEqual([160]);
});

test('it runs at the latest a second after the first touch', async () => {
  const runs = track();
  for (let ms = 0; ms < 1500; ms += 50) {
    runs.touch();
    await vi.advanceTimersByTimeAsync(50);
  }
  expect(runs.at).toEqual([1000]);
});

test('what happens while it runs makes it run again', async () => {
  const gate = Promise.withResolvers<void>();
  const runs = track(() => gate.promise);
  runs.touch();
  await vi.advanceTimersByTimeAsync(100);
  runs.touch();
  await vi.advanceTimersByTimeAsync(500);
  expect(runs.at).toEqual([100]);
  gate.resolve();
  await vi.advanceTimersByTimeAsync(500);
  expect(runs.at).toEqual([100, 700]);
});

test('what is disposed of does not run', async () => {
  const runs = track();
  runs.touch();
  await runs.dispose();
  await vi.advanceTimersByTimeAsync(2000);
  expect(runs.at).toEqual([]);
});

function track(during: () => Promise<void> = async () => undefined): {
  readonly at: readonly number[];
  readonly touch: () => void;
  readonly dispose: () => Promise<void>;
} {
  const start = performance.now();
  const at: number[] = [];
  const action = async (): Promise<void> => {
    at.push(Math.round(performance.now() - start));
    await during();
  };
  const debounced = debounce({ quietMs: 100, capMs: 1000, action });
  return { at, touch: debounced.touch, dispose: async () => await debounced[Symbol.asyncDispose]() };
}
