/**
 * What an operator does, and what traffic notices of it: `npm run bench:operate -- [--only PATTERN] [--capture auto] [--publish]`. One mesh under a
 * steady load; for each action the requests made and failed, connections cut, and the longest stall. Needs root.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { runCommand } from '#test/kit/command.ts';
import { endOnSignal } from '#test/kit/end-on-signal.ts';
import { eventually } from '#test/kit/eventually.ts';
import type { TrafficLine } from '#test/kit/programs/traffic-lines.ts';
import { loopOf } from '#test/kit/traffic.ts';
import { ACTIONS, type Action } from './operate-actions.ts';
import { LOOPS, type OperateBed, openOperateBed } from './operate-bed.ts';
import { addAll, curlFigures, figuresByLoop } from './operate-figures.ts';
import { formatOperation, type Operation } from './operate-report.ts';
import { machine } from './report.ts';

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: '.' },
    capture: { type: 'string', default: 'auto' },
    publish: { type: 'boolean', default: false },
  },
});

/** After an action, before the next: what it has broken shows itself. */
const SETTLE_MS = 4000;

const actions = ACTIONS.filter(({ name }) => new RegExp(options.only).test(name));
const operations: Operation[] = [];
for (const ttl of ['10s', '24h'] as const) await measureAll(ttl);
const { cpus, memoryGb } = machine();
const head = await runCommand(['git', '-C', import.meta.dirname, 'rev-parse', '--short', 'HEAD']);
const commit = head.code === 0 ? head.stdout.trim() : 'unknown';
const date = new Date().toISOString().slice(0, 10);
const environment = { date, commit, cpus, memoryGb, capture: options.capture };
const text = formatOperation(environment, operations);
console.log(text);
if (options.publish) {
  const name = join(import.meta.dirname, '../../docs/benchmarks', `${date}-operate`);
  writeFileSync(`${name}.md`, text);
  writeFileSync(`${name}.json`, `${JSON.stringify({ environment, operations }, undefined, 1)}\n`);
}

/** On a mesh whose certificates live so long. */
async function measureAll(svidTtl: Action['svidTtl']): Promise<void> {
  const wanted = actions.filter((action) => action.svidTtl === svidTtl);
  if (wanted.length === 0) return;
  await using bed = await openOperateBed(['--capture', options.capture, '--svid-ttl', svidTtl]);
  endOnSignal(bed);
  await delay(SETTLE_MS);
  const before = new Map<string, number>();
  for (const action of wanted) operations.push(await measure(bed, action, before));
}

async function measure(bed: OperateBed, action: Action, before: Map<string, number>): Promise<Operation> {
  figuresByLoop(bed.read(), before);
  const lines: TrafficLine[] = [];
  const curlBefore = { kept: bed.curl.kept().length, new: bed.curl.new().length };
  const start = performance.now();
  const remark = await action.act(bed).catch((error: unknown) => `FAILED: ${String(error).slice(0, 300)}`);
  const seconds = (performance.now() - start) / 1000;
  await everythingGoesOn(bed, lines);
  await delay(SETTLE_MS);
  lines.push(...bed.read());
  const loops = figuresByLoop(lines, before);
  const result: Operation = {
    name: action.name,
    kind: action.kind,
    seconds: Number(seconds.toFixed(1)),
    remark: remark ?? '',
    all: addAll(loops.values()),
    loops: Object.fromEntries(loops),
    curl: {
      kept: curlFigures(bed.curl.kept().slice(curlBefore.kept), 'kept'),
      new: curlFigures(bed.curl.new().slice(curlBefore.new), 'new'),
    },
  };
  const { made, failed, cut, longestStallMs } = result.all;
  console.error(
    `${action.name}: ${made} made, ${failed} failed, ${cut} cut, stall ${longestStallMs} ms. ${remark ?? ''}`,
  );
  return result;
}

/** Waits until every loop has had a success after now. */
async function everythingGoesOn(bed: OperateBed, lines: TrafficLine[]): Promise<void> {
  const now = Date.now();
  const going = new Set<string>();
  await eventually(
    'all traffic goes on',
    () => {
      for (const line of bed.read()) {
        lines.push(line);
        if (line.what === 'progress' && line.at > now) going.add(loopOf(line));
      }
      return LOOPS.every(({ name }) => going.has(name));
    },
    60_000,
  ).catch(() => {
    const still = LOOPS.flatMap(({ name }) => (going.has(name) ? [] : [name]));
    console.error(`still nothing goes on: ${still.join(', ')}`);
  });
}
