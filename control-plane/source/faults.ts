import type { z } from 'zod';
import { formatPath, type Path } from './path.ts';
import { isRecord, valueAt } from './plain-value.ts';
import { shown } from './schema-parts.ts';
import type { UnknownField } from './unknown-fields.ts';

/** Something wrong inside an object. */
export interface Fault {
  readonly path: Path;
  /** Whether the key at the path is wrong or its value. */
  readonly part: 'key' | 'value';
  readonly message: string;
  readonly severity: 'warning' | 'error';
}

/** What a schema found, in words with a remedy. */
export function schemaFaults(issues: readonly z.core.$ZodIssue[], root: unknown): readonly Fault[] {
  const mistyped = new Set<string>();
  return issues.flatMap((issue): Fault[] => {
    const path = issue.path.map((segment) => (typeof segment === 'symbol' ? String(segment) : segment));
    // What is of the wrong type has no size either.
    if (mistyped.has(formatPath(path))) return [];
    if (issue.code === 'invalid_type') mistyped.add(formatPath(path));
    const message = wording(issue, valueAt(root, path));
    return [{ path, part: isAtKey(issue) ? 'key' : 'value', message, severity: 'error' }];
  });
}

function isAtKey(issue: z.core.$ZodIssue): boolean {
  return issue.code === 'invalid_key' || (issue.code === 'custom' && issue.params?.['atKey'] === true);
}

/** A field that does not exist, with the one that was perhaps meant. */
export function unknownFieldFault({ path, known }: UnknownField, severity: Fault['severity']): Fault {
  const written = String(path.at(-1));
  const meant = nearest(written, known);
  const remedy = meant === undefined ? '' : `; did you mean ${meant}?`;
  return { path, part: 'key', message: `unknown field ${shown(written)}${remedy}`, severity };
}

/** The choice that text was probably meant to be. */
export function nearest(text: string, choices: readonly string[]): string | undefined {
  if (text.length > 64) return undefined;
  const lower = text.toLowerCase();
  let best: string | undefined;
  let bestDistance = Math.min(3, Math.ceil(text.length / 3));
  for (const choice of choices) {
    const distance = editDistance(lower, choice.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [choice, distance];
  }
  return best;
}

function wording(issue: z.core.$ZodIssue, value: unknown): string {
  switch (issue.code) {
    case 'invalid_type':
      return value === undefined ? 'is required' : wrongType(issue.expected, value);
    case 'invalid_value':
      return value === undefined ? 'is required' : notAmong(value, issue.values.map(String));
    case 'too_big':
      if (issue.origin === 'array') return `has too many entries, at most ${issue.maximum} are allowed`;
      return issue.message;
    case 'invalid_key':
      return issue.issues[0]?.message ?? issue.message;
    default:
      return issue.message;
  }
}

const NAMES_OF_TYPES: ReadonlyMap<string, string> = new Map([
  ['array', 'a list'],
  ['object', 'a map'],
  ['record', 'a map'],
  ['string', 'text'],
  ['boolean', 'true or false'],
  ['int', 'a whole number'],
  ['number', 'a number'],
]);

function wrongType(expected: string, value: unknown): string {
  const wanted = NAMES_OF_TYPES.get(expected) ?? expected;
  const isScalar = typeof value !== 'object';
  if (expected === 'string' && isScalar) return `must be text, not ${described(value)}; write it in quotes`;
  if (expected === 'array') return `must be a list, not ${described(value)}; begin each entry with -`;
  return `must be ${wanted}, not ${described(value)}`;
}

function described(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (isRecord(value)) return 'a map';
  return typeof value === 'string' ? `the text ${shown(value)}` : `the ${typeof value} ${String(value)}`;
}

function notAmong(value: unknown, allowed: readonly string[]): string {
  const meant = typeof value === 'string' ? nearest(value, allowed) : undefined;
  const remedy = meant === undefined ? '' : `; did you mean ${meant}?`;
  const written = typeof value === 'string' ? shown(value) : described(value);
  return `${written} is not one of ${allowed.join(', ')}${remedy}`;
}

/** Letters to add, drop, replace or swap with the next. */
function editDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, index) => index)];
  const at = (row: number, column: number): number => rows[row]?.[column] ?? 0;
  for (let row = 1; row <= a.length; row += 1) {
    const current = [row];
    rows.push(current);
    for (let column = 1; column <= b.length; column += 1) {
      const isSame = a[row - 1] === b[column - 1];
      const isSwapped = row > 1 && a[row - 2] === b[column - 1] && a[row - 1] === b[column - 2];
      current.push(
        Math.min(
          at(row - 1, column - 1) + (isSame ? 0 : 1),
          at(row - 1, column) + 1,
          at(row, column - 1) + 1,
          isSwapped ? at(row - 2, column - 2) + 1 : Number.POSITIVE_INFINITY,
        ),
      );
    }
  }
  return at(a.length, b.length);
}
