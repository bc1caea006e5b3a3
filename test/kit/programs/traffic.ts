/**
 * Mixed traffic that tells what happened and when: `node traffic.ts JSON`, a {@link TrafficPlan}, until SIGTERM. Appends lines of JSON
 * ({@link TrafficLine}) to the plan's file: what failed, was cut or stalled, when it did, and five times a second how much went well.
 */
import { appendFileSync } from 'node:fs';
import type { TrafficLine, TrafficLoop, TrafficPlan } from './traffic-lines.ts';
import { LOOPS, type LoopReport } from './traffic-loops.ts';

/** A wait of this length is written down on its own. */
const STALL_MS = 100;
const PROGRESS_MS = 200;

const plan = JSON.parse(process.argv[2] ?? '') as TrafficPlan;
const lines: TrafficLine[] = [];
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());

const counts = new Map<string, Record<string, number>>();

function reportOf(loop: TrafficLoop): LoopReport {
  let succeededAt = performance.now();
  let waitMs = 0;
  const done = new Map<string, number>();
  counts.set(loop.name, {});
  return {
    signal: stop.signal,
    ok: (answeredBy = '') => {
      const now = performance.now();
      const stallMs = Math.round(now - succeededAt - waitMs);
      if (stallMs >= STALL_MS)
        lines.push({ loop: loop.name, what: 'stall', at: Date.now() - stallMs, ms: stallMs });
      succeededAt = now;
      waitMs = 0;
      done.set(answeredBy, (done.get(answeredBy) ?? 0) + 1);
      counts.set(loop.name, Object.fromEntries(done));
    },
    failed: (what, error) => {
      lines.push({ loop: loop.name, what, at: Date.now(), error: String(error).slice(0, 300) });
    },
    waited: (ms) => {
      waitMs += ms;
    },
  };
}

const running = plan.loops.flatMap((loop) => {
  // Copies of one loop have their own names, so that each one's waits are its own.
  const copies = Array.from({ length: loop.count ?? 1 }, (_, index) => ({
    ...loop,
    name: (loop.count ?? 1) === 1 ? loop.name : `${loop.name}#${index}`,
  }));
  return copies.map((copy) => LOOPS[copy.kind](copy, reportOf(copy)));
});
const told = new Map<string, string>();
const flush = (): void => {
  const at = Date.now();
  for (const [loop, ok] of counts) {
    const text = JSON.stringify(ok);
    if (told.get(loop) !== text) lines.push({ loop, what: 'progress', at, ok });
    told.set(loop, text);
  }
  if (lines.length > 0) appendFileSync(plan.file, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  lines.length = 0;
};
const timer = setInterval(flush, PROGRESS_MS);
await Promise.race([Promise.all(running), new Promise((resolve) => setTimeout(resolve, 2 ** 31 - 1))]);
clearInterval(timer);
flush();
process.exit(0);
