import { readIfThere, replaceFile } from './replace-file.ts';

/** When each fault was first seen, kept over restarts, so that a restart never begins one anew. */
export interface FaultFile {
  /** Milliseconds since the epoch, by the fault's key. */
  readonly current: () => ReadonlyMap<string, number>;
  /** Keeps them, if they changed; before anyone is told of a fault. */
  readonly save: (firstSeen: ReadonlyMap<string, number>) => void;
}

/** The file is not what was written to it. */
export class FaultFileError extends Error {
  override readonly name = 'FaultFileError';
}

/** @throws FaultFileError for a file that is not what was written: a fault that has ended must not begin anew. */
export function openFaultFile(path: string): FaultFile {
  let text = readIfThere(path);
  let firstSeen = text === undefined ? new Map<string, number>() : parse(path, text);
  return {
    current: () => firstSeen,
    save: (next) => {
      const nextText = `${JSON.stringify(Object.fromEntries(next))}\n`;
      if (nextText !== text && (text !== undefined || next.size > 0)) {
        replaceFile(path, nextText);
        text = nextText;
      }
      firstSeen = new Map(next);
    },
  };
}

/** When those of `keys` were first seen that are there now: now, for one that was not there before. */
export function seeFaults(
  keys: readonly string[],
  before: ReadonlyMap<string, number>,
  nowMs: number,
): ReadonlyMap<string, number> {
  return new Map(keys.toSorted().map((key) => [key, before.get(key) ?? nowMs]));
}

/** What a clock that was put back left in the future counts from now, so that no fault lasts longer than it says. */
export function noLaterThan(
  firstSeen: ReadonlyMap<string, number>,
  nowMs: number,
): ReadonlyMap<string, number> {
  return new Map([...firstSeen].map(([key, seenMs]) => [key, Math.min(seenMs, nowMs)]));
}

function parse(path: string, text: string): Map<string, number> {
  try {
    const entries = Object.entries(asObject(JSON.parse(text)));
    return new Map(entries.map(([key, value]) => [key, asTime(key, value)]));
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

function asTime(key: string, value: unknown): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new Error(`${JSON.stringify(key)} has no time`);
}
