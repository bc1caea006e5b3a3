import { expect, test } from 'vitest';
import { RateLimit } from './rate-limit.ts';

test('what comes when it is asked for more, and its end, passes whole', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const source = [Buffer.alloc(8_000, 'a'), Buffer.alloc(8_000, 'b'), Buffer.alloc(8_000, 'c')];
  const sent: Buffer[] = [];
  const limit = new RateLimit(
    100,
    (chunk) => {
      sent.push(chunk);
      return true;
    },
    () => supply(),
  );
  /** As an upstream connection does that is resumed: all that it has, in the same turn. */
  function supply(): void {
    for (let next = source.shift(); next !== undefined; next = source.shift()) if (!limit.write(next)) break;
    if (source.length === 0) limit.end(resolve);
  }
  const startedAt = performance.now();
  supply();
  await promise;
  expect(Buffer.concat(sent).toString()).toBe(`${'a'.repeat(8_000)}${'b'.repeat(8_000)}${'c'.repeat(8_000)}`);
  expect(performance.now() - startedAt).toBeGreaterThan(180);
});
