import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Bed, openBed } from './bed.ts';
import type { Case } from './case.ts';
import { CORS, HEADERS, MIRRORS, REDIRECTS, REWRITES } from './cases/filters.ts';
import { ANSWERS, FORGED, MESSAGES, PATHS } from './cases/hostile.ts';
import { MATCHING, ORDER, REGEX } from './cases/matching.ts';
import { GRPC, PROTOCOLS, STREAMS } from './cases/protocols.ts';
import { FAULTS, REFERENCES, RETRIES, TIMEOUTS } from './cases/traffic.ts';
import { differencesOf, unmetOf } from './compare.ts';

const GROUPS: readonly (readonly [string, readonly Case[]])[] = [
  ['matching', MATCHING],
  ['order of rules', ORDER],
  ['regular expressions', REGEX],
  ['header filters', HEADERS],
  ['redirects', REDIRECTS],
  ['rewrites', REWRITES],
  ['mirrors', MIRRORS],
  ['CORS', CORS],
  ['references', REFERENCES],
  ['timeouts', TIMEOUTS],
  ['retries', RETRIES],
  ['faults', FAULTS],
  ['gRPC', GRPC],
  ['versions of HTTP', PROTOCOLS],
  ['hostile paths', PATHS],
  ['hostile messages', MESSAGES],
  ['hostile streams of HTTP/2', STREAMS],
  ['forged headers', FORGED],
  ['answers of all kinds', ANSWERS],
];

/** Requests under way at a time, on each side. */
const WIDTH = 6;

describe('the same configuration in Envoy and in the waypoint', () => {
  let bed: Bed;
  let compared = 0;

  beforeAll(async () => {
    bed = await openBed();
  });

  afterAll(async () => {
    await bed?.[Symbol.asyncDispose]();
  });

  test.each(GROUPS)('%s', async (_name, cases) => {
    const lines = await inParallel(cases, WIDTH, (each) => compare(bed, each));
    compared += cases.length;
    expect(lines.flat()).toEqual([]);
  });

  test('at least 300 requests were compared', () => {
    expect(compared).toBeGreaterThanOrEqual(300);
  });
});

/** What differs, or does not hold, a line each. */
async function compare(bed: Bed, each: Case): Promise<readonly string[]> {
  try {
    if (process.env['ENVOY_ONLY']) return unmetOf('envoy', each, await bed.ask('envoy', each));
    const [envoy, ours] = await Promise.all([bed.ask('envoy', each), bed.ask('ours', each)]);
    const unmet = [...unmetOf('envoy', each, envoy), ...unmetOf('ours', each, ours)];
    return [...unmet, ...differencesOf(each, envoy, ours)];
  } catch (error) {
    return [`${each.name}: ${String(error)}`];
  }
}

async function inParallel<T, R>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<R>,
): Promise<readonly R[]> {
  const results: R[] = [];
  const rest = [...items.entries()];
  const worker = async (): Promise<void> => {
    for (let next = rest.shift(); next !== undefined; next = rest.shift())
      results[next[0]] = await work(next[1]);
  };
  await Promise.all(Array.from({ length: width }, worker));
  return results;
}
