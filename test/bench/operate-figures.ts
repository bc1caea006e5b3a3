import type { TrafficLine } from '#test/kit/programs/traffic-lines.ts';
import { loopOf, okOf } from '#test/kit/traffic.ts';
import type { CurlAnswer } from './operate-bed.ts';

/** What one loop, or all of them, did while something happened. */
export interface Figures {
  /** Answered, and not. */
  readonly made: number;
  readonly failed: number;
  readonly cut: number;
  /** Longest time without a success where one was due. */
  readonly longestStallMs: number;
  /** A few of the errors, as the client saw them. */
  readonly errors: readonly string[];
}

/** What a curl saw. */
export interface CurlFigures {
  readonly made: number;
  readonly failed: number;
  /** Connections beyond the one that it keeps. */
  readonly cut: number;
  readonly longestMs: number;
}

/** Adds up lines by the name of their loop; how much had gone well before is kept in `before`, by the loop's copy. */
export function figuresByLoop(
  lines: readonly TrafficLine[],
  before: Map<string, number>,
): ReadonlyMap<string, Figures> {
  const figures = new Map<string, Figures>();
  for (const line of lines) {
    const so = figures.get(loopOf(line)) ?? NOTHING;
    figures.set(loopOf(line), add(so, figuresOf(line, before)));
  }
  return figures;
}

const NOTHING: Figures = { made: 0, failed: 0, cut: 0, longestStallMs: 0, errors: [] };

function figuresOf(line: TrafficLine, before: Map<string, number>): Figures {
  if (line.what === 'stall') return { ...NOTHING, longestStallMs: line.ms };
  if (line.what === 'progress') {
    const ok = okOf(line);
    const made = ok - (before.get(line.loop) ?? 0);
    before.set(line.loop, ok);
    return { ...NOTHING, made };
  }
  const errors = [line.error];
  if (line.what === 'cut') return { ...NOTHING, cut: 1, errors };
  return { ...NOTHING, made: 1, failed: 1, errors };
}

/** Sums, and the longest of the stalls. */
export function addAll(figures: Iterable<Figures>): Figures {
  return [...figures].reduce(add, NOTHING);
}

const MOST_ERRORS = 5;

function add(a: Figures, b: Figures): Figures {
  return {
    made: a.made + b.made,
    failed: a.failed + b.failed,
    cut: a.cut + b.cut,
    longestStallMs: Math.max(a.longestStallMs, b.longestStallMs),
    errors: [...new Set([...a.errors, ...b.errors])].slice(0, MOST_ERRORS),
  };
}

/** What curl's answers say; one that keeps its connection opens none. */
export function curlFigures(answers: readonly CurlAnswer[], how: 'kept' | 'new'): CurlFigures {
  const failed = answers.filter(({ status }) => status !== 200).length;
  const connects = answers.reduce((sum, answer) => sum + answer.connects, 0);
  return {
    made: answers.length,
    failed,
    cut: how === 'kept' ? connects : 0,
    longestMs: answers.reduce((longest, { ms }) => Math.max(longest, ms), 0),
  };
}
