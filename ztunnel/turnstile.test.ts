import { expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { Turnstile, TurnstileError } from './turnstile.ts';

test('so many are let through at a time, the others in the order in which they came', async () => {
  const turnstile = new Turnstile(2, () => undefined);
  const begun: number[] = [];
  const ends = [0, 1, 2, 3].map((index) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const work = async (): Promise<void> => {
      begun.push(index);
      await promise;
    };
    return { done: turnstile.run(work, 60_000), resolve };
  });
  expect(begun).toEqual([0, 1]);
  ends[1]?.resolve();
  await eventually('the third begins', () => begun.length === 3);
  expect(begun).toEqual([0, 1, 2]);
  for (const { resolve } of ends) resolve();
  await Promise.all(ends.map(({ done }) => done));
  expect(begun).toEqual([0, 1, 2, 3]);
});

test('work that fails makes room, too, and who waits too long is told', async () => {
  let late = 0;
  const turnstile = new Turnstile(1, () => {
    late += 1;
  });
  const fails = turnstile.run(async () => {
    throw new Error('no');
  }, 1_000);
  await expect(fails).rejects.toThrow('no');
  const { promise, resolve } = Promise.withResolvers<void>();
  const first = turnstile.run(() => promise, 1_000);
  await expect(turnstile.run(async () => undefined, 10)).rejects.toThrow(TurnstileError);
  expect({ late, waiting: turnstile.waiting }).toEqual({ late: 1, waiting: 0 });
  resolve();
  await first;
  expect(await turnstile.run(async () => 'through', 1_000)).toBe('through');
});
