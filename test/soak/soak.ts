import { setTimeout as delay } from 'node:timers/promises';
import type { TrafficLine } from '#test/kit/programs/traffic-lines.ts';
import type { SoakBed } from './bed.ts';
import { failuresOf, type Happened } from './failures.ts';
import { GAP_MS, HAPPENINGS, type Happening } from './happenings.ts';
import { type JudgeOptions, judge, type Sample, SHORTEST_MINUTES } from './judge.ts';
import type { SoakResult } from './report.ts';
import { takeSamples } from './sampler.ts';

const SAMPLE_MS = 10_000;
/** Between two happenings. */
const PAUSE_MS = 3000;
/** In the quiet part of a round, in which no process is replaced. */
const QUIET_PAUSE_MS = 15_000;
const ROUND_MINUTES = 30;
const MS_IN_MINUTE = 60_000;
/** Pooled tunnels of who does not call any more are kept for five minutes, and certificates live for one. */
const JUDGED: JudgeOptions = { warmUpMinutes: 7, windowMinutes: 0.5 };

/** Soaks for so many minutes. `log` is told what happens. */
export async function soak(bed: SoakBed, minutes: number, log: (text: string) => void): Promise<SoakResult> {
  const start = Date.now();
  const until = start + minutes * MS_IN_MINUTE;
  const lines: TrafficLine[] = [];
  const samples: Sample[] = [];
  const happened: Happened[] = [];
  const stop = new AbortController();
  const sampling = sampleUntil(stop.signal, async () => {
    samples.push(...(await takeSamples(bed.sampled, (Date.now() - start) / MS_IN_MINUTE)));
    lines.push(...bed.read());
  });
  for (const happening of schedule(minutes, () => (Date.now() - start) / MS_IN_MINUTE)) {
    if (Date.now() >= until) break;
    const entry = await happen(bed, happening);
    happened.push(entry);
    log(
      `${((entry.start - start) / MS_IN_MINUTE).toFixed(1)} min: ${entry.name}, ${entry.end - entry.start} ms${entry.error === undefined ? '' : `: ${entry.error}`}`,
    );
    await delay(Math.max(0, Math.min(pauseAfter(happening, minutes), until - Date.now())));
  }
  await delay(PAUSE_MS);
  stop.abort();
  await sampling;
  lines.push(...bed.read());
  return {
    start,
    minutes: (Date.now() - start) / MS_IN_MINUTE,
    samples,
    lines,
    happened,
    failures: failuresOf(lines, happened),
    judged: JUDGED,
    verdicts: minutes < SHORTEST_MINUTES ? undefined : judge(samples, JUDGED),
  };
}

/**
 * What happens, in turn. A long run has rounds: first every process is replaced or killed, then processes stay, so that what they hold
 * can be told apart from what they started with. A short run takes one of each in turn.
 */
function* schedule(minutes: number, now: () => number): Generator<Happening> {
  const churn = HAPPENINGS.filter(({ of }) => of === 'churn');
  const replace = HAPPENINGS.filter(({ of }) => of === 'replace');
  if (minutes < SHORTEST_MINUTES) {
    for (;;)
      yield* HAPPENINGS.flatMap((_, index) => [
        ...churn.slice(index, index + 1),
        ...replace.slice(index, index + 1),
      ]);
  }
  for (let round = 1; ; round += 1) {
    yield* replace;
    while (now() < round * ROUND_MINUTES) yield* churn;
  }
}

function pauseAfter({ kind, of }: Happening, minutes: number): number {
  if (kind === 'killed') return GAP_MS;
  return of === 'churn' && minutes >= SHORTEST_MINUTES ? QUIET_PAUSE_MS : PAUSE_MS;
}

async function happen(bed: SoakBed, { name, kind, happen: act }: Happening): Promise<Happened> {
  const start = Date.now();
  try {
    const expected = await act(bed);
    return { name, kind, start, end: Date.now(), expected };
  } catch (error) {
    return { name, kind, start, end: Date.now(), error: String(error).slice(0, 500) };
  }
}

async function sampleUntil(signal: AbortSignal, sample: () => Promise<void>): Promise<void> {
  while (!signal.aborted) {
    const start = Date.now();
    await sample();
    await delay(Math.max(0, SAMPLE_MS - (Date.now() - start)), undefined, { signal }).catch(() => undefined);
  }
}
