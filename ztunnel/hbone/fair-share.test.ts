import { expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { FairShare, type Reader } from './fair-share.ts';

const KIB = 1024;

function reader(name: string, seen: string[]): Reader {
  return { rest: () => seen.push(`${name} rests`), goOn: () => seen.push(`${name} goes on`) };
}

async function nextTurn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

test('a party that is alone reads and does what it wants', async () => {
  // Others were there, long ago for all that counts.
  await new Promise((resolve) => setTimeout(resolve, 250));
  const share = new FairShare();
  const seen: string[] = [];
  for (let index = 0; index < 100; index++) share.take(reader('one', seen), 64 * KIB);
  for (let index = 0; index < 100; index++) share.run(() => seen.push(`work ${index}`));
  expect(seen).toHaveLength(100);
  expect(seen[0]).toBe('work 0');
});

test('beside another party it reads a quarter of a MiB in a turn; sockets beyond take turns, two at a time', async () => {
  const [noisy, quiet] = [new FairShare(), new FairShare()];
  const seen: string[] = [];
  quiet.take(reader('quiet', seen), 1);
  for (const name of ['a', 'b', 'c', 'd', 'e', 'f']) noisy.take(reader(name, seen), 100 * KIB);
  quiet.take(reader('quiet', seen), 1);
  expect(seen).toEqual(['c rests', 'd rests', 'e rests', 'f rests']);
  await eventually('two go on', () => seen.length > 4);
  expect(seen.slice(4, 6)).toEqual(['c goes on', 'd goes on']);
  await eventually('all go on', () => seen.length === 8);
  expect(seen.slice(6)).toEqual(['e goes on', 'f goes on']);
});

test('beside another party it does one piece of work in a turn, and the rest in the order in which they came', async () => {
  const [noisy, quiet] = [new FairShare(), new FairShare()];
  quiet.run(() => undefined);
  await nextTurn();
  const seen: number[] = [];
  for (let index = 0; index < 10; index++) noisy.run(() => seen.push(index));
  expect(seen).toEqual([0]);
  const done: string[] = [];
  quiet.run(() => done.push('quiet'));
  expect(done).toEqual(['quiet']);
  await nextTurn();
  await eventually('all of it', () => seen.length === 10);
  expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});
