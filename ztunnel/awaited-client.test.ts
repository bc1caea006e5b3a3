import { expect, test } from 'vitest';
import type { Workload } from '#api/workload.ts';
import { workload } from '#test/kit/resources.ts';
import { awaitClient } from './awaited-client.ts';

test('a client becomes known to all who wait for it, and those beyond 256 are told at once that it is not', async () => {
  const web = workload({ name: 'web' });
  const come = Promise.withResolvers<Workload>();
  const known = awaitClient({ now: () => undefined, until: () => come.promise });
  const waiting = Array.from({ length: 256 }, known);
  expect(await known()).toBeUndefined();
  come.resolve(web);
  expect(await Promise.all(waiting)).toEqual(waiting.map(() => web));
  expect(await known()).toBe(web);
});
