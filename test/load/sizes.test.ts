import { expect, test } from 'vitest';
import { moveSizes } from '#test/soak/sizes.ts';

/** The whole sizes take minutes: `npm run test:long`. */
const SIZES = { bytes: 256 * 2 ** 20, atOnce: 500, inARow: 3000 };

test.each(['auto', 'nftables'])(
  'captured by %s, bytes arrive whole, connections are answered, and everything comes back to where it was',
  { timeout: 600_000 },
  async (capture) => {
    const results = await moveSizes({ ...SIZES, capture });
    expect(results.map(({ name, found, isWhole, left }) => ({ name, found, isWhole, left }))).toEqual(
      results.map(({ name }) => ({ name, found: expect.anything(), isWhole: true, left: [] })),
    );
    expect(results).toHaveLength(3);
  },
);
