import type { Bed } from './bed.ts';
import { type Case, get, type Observation } from './case.ts';
import type { Split } from './cases/splits.ts';
import type { Side } from './compare.ts';
import { inParallel } from './in-parallel.ts';

const WIDTH = 8;
/** A fair split is outside of so many standard deviations once in 100,000 runs. */
const DEVIATIONS = 4.5;

/** What does not hold of a split, a line each. */
export async function missed(bed: Bed, split: Split): Promise<readonly string[]> {
  const sides: readonly Side[] = ['envoy', 'ours'];
  const lines = await Promise.all(
    sides.map(async (side) => judge(side, split, await count(bed, side, split))),
  );
  return lines.flat();
}

async function count(
  bed: Bed,
  side: Side,
  { name, to, send, count: wanted, of }: Split,
): Promise<ReadonlyMap<string, number>> {
  const one: Case = { name, to, send, expect: {} };
  const observations = await inParallel(Array.from({ length: wanted }), WIDTH, () => bed.ask(side, one));
  if (of === 'mirror') return new Map([['mirror-1', await mirrors(bed, side, send)]]);
  const counts = new Map<string, number>();
  for (const key of observations.flatMap((observation) => keysOf(of, observation)))
    counts.set(key, (counts.get(key) ?? 0) + 1);
  return counts;
}

function keysOf(of: 'status' | 'upstream', { status, headers }: Observation): readonly string[] {
  if (of === 'status') return [`${status}`];
  return [headers.find(([name]) => name === 'x-upstream')?.[1] ?? 'none'];
}

/** Mirrored requests, once one that came after all of them has been seen. */
async function mirrors(bed: Bed, side: Side, send: Case['send']): Promise<number> {
  await bed.ask(side, {
    name: 'the last',
    to: 'mirror',
    send: get('/all'),
    expect: { mirrors: ['mirror-1'] },
  });
  return await bed.mirrored(side, 'path' in send ? send.path : '');
}

function judge(
  side: Side,
  { name, shares, count: all, isExact }: Split,
  counts: ReadonlyMap<string, number>,
): readonly string[] {
  const strangers = [...counts.keys()].filter((key) => shares[key] === undefined);
  const off = Object.entries(shares).filter(([key, share]) => {
    const distance = Math.abs((counts.get(key) ?? 0) - all * share);
    const allowed = side === 'ours' && isExact ? 1 : DEVIATIONS * Math.sqrt(all * share * (1 - share));
    return distance > allowed + 1e-9;
  });
  return [
    ...strangers.map((key) => `${name}: ${side}: ${counts.get(key)} of ${all} were for ${key}`),
    ...off.map(
      ([key, share]) =>
        `${name}: ${side}: ${counts.get(key) ?? 0} of ${all} for ${key}, wanted ${all * share}`,
    ),
  ];
}
