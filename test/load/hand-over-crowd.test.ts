import { once } from 'node:events';
import { expect, test } from 'vitest';
import { temporaryAuthority } from '#certs/testing.ts';
import { type Call, RestartBed } from '#ztunnel/resume/testing.ts';

const CALLS = 1_000;

test(`${CALLS} connections through tunnels go over at once, at both ends`, { timeout: 120_000 }, async ({
  annotate,
}) => {
  await using ca = await temporaryAuthority();
  await using bed = await RestartBed.open(ca);
  const calls: Call[] = [];
  while (calls.length < CALLS)
    calls.push(...(await Promise.all(Array.from({ length: 50 }, () => bed.call()))));
  const startedAt = performance.now();
  await bed.restart(['n1', 'n2']);
  await annotate(`both restarts took ${Math.round(performance.now() - startedAt)} ms`);
  for (const { caller } of calls) caller.write('y');
  for (const { callee } of calls) if (callee.bytesRead < 2) await once(callee, 'data');
  expect(calls.filter(({ caller, callee }) => caller.destroyed || callee.destroyed)).toEqual([]);
  const outcomes = bed.nodes.flatMap((node) => node.outcomes);
  expect(new Set(outcomes)).toEqual(new Set(['outbound-tunnel handed_over', 'inbound-tunnel handed_over']));
});
