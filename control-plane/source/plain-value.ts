import type { Path } from './path.ts';

/** Deeper than any object of Kubernetes, and shallow enough for recursion. */
const MAX_DEPTH = 200;

/** A value as JSON has it, without its nulls: as in Kubernetes, a field that is null is not there. */
export interface PlainValue {
  readonly value: unknown;
  /** Where a map has a key without a value. */
  readonly empties: readonly Path[];
}

/**
 * Drops the nulls. Aliases make the value larger than its text; how much larger is bounded.
 * @throws Error when it is too deep or too large.
 */
export function plainValue(value: unknown, textLength: number): PlainValue {
  const empties: Path[] = [];
  let budget = textLength + 100_000;

  function copy(part: unknown, path: Path): unknown {
    budget -= 1;
    if (budget < 0) throw new Error('its aliases repeat too much');
    if (typeof part !== 'object' || part === null) return part;
    if (path.length > MAX_DEPTH) throw new Error(`nested deeper than ${MAX_DEPTH} levels`);
    if (Array.isArray(part)) return part.map((item, index) => copy(item, [...path, index]));
    const entries: [string, unknown][] = [];
    for (const [key, field] of Object.entries(part)) {
      if (field === null || field === undefined) empties.push([...path, key]);
      else entries.push([key, copy(field, [...path, key])]);
    }
    // Makes own properties also of keys such as __proto__.
    return Object.fromEntries(entries);
  }

  return { value: copy(value, []) ?? undefined, empties };
}

/** Whether a plain value is a map. */
export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What is at a path of a plain value; undefined: nothing. */
export function valueAt(root: unknown, path: Path): unknown {
  let value = root;
  for (const segment of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, segment)) return undefined;
    value = (value as Readonly<Record<string | number, unknown>>)[segment];
  }
  return value;
}
