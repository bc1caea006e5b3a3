import type { TrafficLine } from '#test/kit/programs/traffic-lines.ts';
import { GUARDED, ROUTED } from './bed.ts';
import { type Expected, GAP_MS, type Happening } from './happenings.ts';

/** Something that happened, by the clock (milliseconds). */
export interface Happened extends Pick<Happening, 'name' | 'kind'> {
  readonly start: number;
  readonly end: number;
  readonly expected?: Expected | undefined;
  /** Why it did not come off. */
  readonly error?: string | undefined;
}

/** A failure and what it is put down to. */
export interface Failure {
  readonly at: number;
  readonly loop: string;
  readonly what: 'failed' | 'cut' | 'not as configured';
  readonly error: string;
  /** What was going on, or had just ended. */
  readonly during: string;
  /** It is the price of a process that was killed. */
  readonly isExpected: boolean;
}

/** Progress is told so often; what is told this soon after a moment may have happened before it. */
const TOLD_LATE_MS = 300;
/** What a planned happening has broken shows itself this soon. */
const AFTER_MS = 15_000;

/** Failures of traffic, each put down to what was going on. Calls that a policy forbids are no failures. */
export function failuresOf(lines: readonly TrafficLine[], happened: readonly Happened[]): readonly Failure[] {
  const ofTraffic = lines.flatMap((line): readonly Failure[] => {
    if ((line.what !== 'failed' && line.what !== 'cut') || line.loop === GUARDED) return [];
    const { at, loop, what, error } = line;
    const killed = happened.find((each) => each.kind === 'killed' && isWithin(at, each, GAP_MS));
    const other = happened.findLast((each) => isWithin(at, each, AFTER_MS));
    return [
      {
        at,
        loop,
        what,
        error,
        during: (killed ?? other)?.name ?? 'nothing',
        isExpected: killed !== undefined,
      },
    ];
  });
  return [...ofTraffic, ...happened.flatMap((each) => unfulfilled(lines, each))];
}

function isWithin(at: number, { start, end }: Happened, afterMs: number): boolean {
  return at >= start && at <= end + afterMs;
}

/** What happened and was expected to have consequences that it had not; and what did not come off. */
function unfulfilled(
  lines: readonly TrafficLine[],
  { name, start, end, expected, error }: Happened,
): readonly Failure[] {
  const failure = (loop: string, text: string): Failure => ({
    at: expected?.since ?? start,
    loop,
    what: 'not as configured',
    error: text,
    during: name,
    isExpected: false,
  });
  if (error !== undefined) return [{ ...failure(name, error), at: end }];
  if (expected === undefined) return [];
  const { what } = expected;
  if (what === 'denied') {
    const answered = Object.values(answeredWithin(lines, GUARDED, expected)).reduce((a, b) => a + b, 0);
    return answered === 0 ? [] : [failure(GUARDED, `${answered} calls were answered`)];
  }
  if (what === 'allowed') {
    const refused = lines.find(
      (line) =>
        line.loop === GUARDED &&
        line.what === 'failed' &&
        line.at > expected.since &&
        line.at < expected.until,
    );
    return refused === undefined ? [] : [failure(GUARDED, `a call failed: ${JSON.stringify(refused)}`)];
  }
  const answered = answeredWithin(lines, ROUTED, expected);
  const names = Object.keys(answered).filter((each) => (answered[each] ?? 0) > 0);
  const isSame = names.toSorted().join() === what.answeredBy.toSorted().join();
  return isSame
    ? []
    : [failure(ROUTED, `answered by ${JSON.stringify(answered)}, not by ${what.answeredBy.join(', ')}`)];
}

/** How many answers a loop had in a time, by who gave them. */
function answeredWithin(
  lines: readonly TrafficLine[],
  loop: string,
  { since, until }: Expected,
): Readonly<Record<string, number>> {
  const told = lines.flatMap((line) => (line.loop === loop && line.what === 'progress' ? [line] : []));
  const before = told.findLast(({ at }) => at <= since + TOLD_LATE_MS)?.ok ?? {};
  const after = told.findLast(({ at }) => at <= until)?.ok ?? before;
  return Object.fromEntries(Object.entries(after).map(([name, ok]) => [name, ok - (before[name] ?? 0)]));
}
