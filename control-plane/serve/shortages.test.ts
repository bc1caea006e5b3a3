import { expect, test } from 'vitest';
import { Shortages } from './shortages.ts';

test('what is refused is a shortage since the first time, until five minutes after the last', () => {
  let now = 1000;
  const shortages = new Shortages(() => now);
  shortages.note('connections', 'all 1');
  now += 299_999;
  shortages.note('connections', 'all 2');
  shortages.note('streams of node/n1', 'too many');
  now += 299_999;
  expect(shortages.current()).toMatchObject([
    { subject: 'connections', sinceMs: 1000, error: 'all 2' },
    { subject: 'streams of node/n1' },
  ]);
  now += 1;
  expect(shortages.current()).toEqual([]);
  shortages.note('connections', 'all 3');
  expect(shortages.current()).toMatchObject([{ sinceMs: now }]);
});
