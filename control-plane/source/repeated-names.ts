import type { Fault } from './faults.ts';
import type { Path } from './path.ts';
import { valueAt } from './plain-value.ts';
import { shown } from './schema-parts.ts';

/** Matches on a name that is there already, which do not count; `lists` are fields of a match, and whether case tells names apart. */
export function repeatedNames(
  written: unknown,
  lists: readonly { readonly field: string; readonly isHeader: boolean }[],
): readonly Fault[] {
  const faults: Fault[] = [];
  for (const [rule, match] of matchPaths(written))
    for (const { field, isHeader } of lists) {
      const path = ['spec', 'rules', rule, 'matches', match, field];
      const seen = new Set<string>();
      for (const [index, one] of listAt(written, path).entries()) {
        const name = valueAt(one, ['name']);
        if (typeof name !== 'string') continue;
        const key = isHeader ? name.toLowerCase() : name;
        const message = `${shown(name)} is there already, and only the first of a name counts`;
        if (seen.has(key))
          faults.push({ path: [...path, index], part: 'value', message, severity: 'warning' });
        seen.add(key);
      }
    }
  return faults;
}

function* matchPaths(written: unknown): Generator<readonly [rule: number, match: number]> {
  for (const [rule, one] of listAt(written, ['spec', 'rules']).entries())
    for (const match of listAt(one, ['matches']).keys()) yield [rule, match];
}

function listAt(value: unknown, path: Path): readonly unknown[] {
  const list = valueAt(value, path);
  return Array.isArray(list) ? list : [];
}
