import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Bed, openBed } from './bed.ts';
import { inParallel } from './in-parallel.ts';
import { compareRandom } from './random/compare.ts';
import { randomServices, writeObjects } from './random/world.ts';

/** What is made at random hangs on these only; by hand there may be others, and more. */
const SEED = Number(process.env['INTEROP_SEED'] ?? 1);
const SERVICES = Number(process.env['INTEROP_SERVICES'] ?? 20);
const REQUESTS = Number(process.env['INTEROP_REQUESTS'] ?? 20);

/** Requests under way at a time, on each side: with more the budget of retries could be used up. */
const WIDTH = 4;

let bed: Bed;
const folder = mkdtempSync(join(tmpdir(), `tulle-interop-${process.pid}-objects-`));
const services = randomServices(SEED, SERVICES);

beforeAll(async () => {
  writeObjects(folder, services);
  bed = await openBed(folder);
});

afterAll(async () => {
  await bed?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
});

test(`routes and requests at random, seed ${SEED}: INTEROP_SEED, INTEROP_SERVICES and INTEROP_REQUESTS ask for others`, async () => {
  const cases = services.flatMap(({ requests }, index) =>
    fc.sample(requests, { seed: SEED * 1000 + index, numRuns: REQUESTS }),
  );
  const results = await inParallel(cases, WIDTH, (each) => compareRandom(bed, each));
  const reasons = results.flatMap(({ because }) => because);
  const counts = Map.groupBy(reasons, (reason) => reason);
  process.stdout.write(`seed ${SEED}: ${cases.length} requests compared\n`);
  for (const [reason, all] of counts) process.stdout.write(`  ${all.length} differ on purpose: ${reason}\n`);
  const lines = results.flatMap((result) => result.lines);
  for (const line of lines) process.stdout.write(`${line}\n`);
  expect(lines).toEqual([]);
}, 3_600_000);
