import type { FaultClock, FaultTimes } from './derive/waypoint/fault-times.ts';
import { readIfThere, replaceFile } from './replace-file.ts';

/** A fault that was seen. */
export interface SeenFault {
  /** When it was first seen, in milliseconds since the epoch. */
  readonly seenMs: number;
  /** Whether it has ended: then no clock begins it anew. */
  readonly isOver: boolean;
}

/** When each fault was first seen, kept over restarts, so that a restart never begins one anew. */
export interface FaultFile {
  /** By the fault's key. */
  readonly current: () => ReadonlyMap<string, SeenFault>;
  /** Keeps them, if they changed; before anyone is told of a fault. */
  readonly save: (seen: ReadonlyMap<string, SeenFault>) => void;
}

/** The file is not what was written to it. */
export class FaultFileError extends Error {
  override readonly name = 'FaultFileError';
}

/** @throws FaultFileError for a file that is not what was written: a fault that has ended must not begin anew. */
export function openFaultFile(path: string): FaultFile {
  let text = readIfThere(path);
  let seen: ReadonlyMap<string, SeenFault> = text === undefined ? new Map() : parse(path, text);
  return {
    current: () => seen,
    save: (next) => {
      const entries = [...next].map(([key, { seenMs, isOver }]) => [key, { seenMs, isOver }]);
      const nextText = `${JSON.stringify(Object.fromEntries(entries))}\n`;
      if (nextText !== text && (text !== undefined || next.size > 0)) {
        replaceFile(path, nextText);
        text = nextText;
      }
      seen = next;
    },
  };
}

/**
 * What to reckon with. What a clock that was put back left in the future counts from now, so that no fault lasts longer than it
 * says.
 */
export function faultClock(seen: ReadonlyMap<string, SeenFault>, nowMs: number): FaultClock {
  return {
    firstSeen: new Map(
      [...seen].map(([key, { seenMs, isOver }]) => [key, isOver ? seenMs : Math.min(seenMs, nowMs)]),
    ),
    over: new Set([...seen].flatMap(([key, { isOver }]) => (isOver ? [key] : []))),
    nowMs,
  };
}

/** What is to be kept of the faults that there are: one that was not there before is seen now. */
export function seeFaults(
  { keys, over }: Pick<FaultTimes, 'keys' | 'over'>,
  { firstSeen, nowMs }: FaultClock,
): ReadonlyMap<string, SeenFault> {
  return new Map(
    keys.toSorted().map((key) => [key, { seenMs: firstSeen.get(key) ?? nowMs, isOver: over.has(key) }]),
  );
}

function parse(path: string, text: string): ReadonlyMap<string, SeenFault> {
  try {
    const entries = Object.entries(asObject(JSON.parse(text)));
    return new Map(entries.map(([key, value]) => [key, asSeen(key, value)]));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new FaultFileError(
      `${path} cannot be read (${reason}); restore it, or remove it and the faults of all TrafficPolicies begin anew`,
      { cause },
    );
  }
}

function asObject(value: unknown): object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('not an object');
  return value;
}

function asSeen(key: string, value: unknown): SeenFault {
  const { seenMs, isOver } = asObject(value) as Readonly<Record<keyof SeenFault, unknown>>;
  if (
    typeof seenMs === 'number' &&
    Number.isSafeInteger(seenMs) &&
    seenMs >= 0 &&
    typeof isOver === 'boolean'
  )
    return { seenMs, isOver };
  throw new Error(`${JSON.stringify(key)} has no time`);
}
