import type { RouteObject } from '../../source/objects.ts';
import type { GrpcMatch, HttpMatch } from '../../source/route-objects.ts';
import { compareText } from '../inventory.ts';
import type { GrpcEntry, HttpEntry, TlsEntry } from './attached.ts';

/**
 * Older routes first, then by `namespace/name`: what decides where matches are equally specific. One without a creation time is
 * younger than all that have one.
 */
export function compareRoutes(a: RouteObject, b: RouteObject): number {
  return ageOf(a) - ageOf(b) || compareText(nameOf(a), nameOf(b));
}

/**
 * The order of matches of HTTPRoutes: exact paths, regular expressions, then prefixes, the longer before the shorter; a method
 * before none; more headers, then more query parameters. Entries that are equal in that stay as they come.
 */
export function sortHttpEntries(entries: readonly HttpEntry[]): readonly HttpEntry[] {
  return entries.toSorted(
    ({ match: a }, { match: b }) =>
      pathRank(a) - pathRank(b) ||
      pathLength(b) - pathLength(a) ||
      Number(b.method !== undefined) - Number(a.method !== undefined) ||
      b.headers.length - a.headers.length ||
      b.queryParams.length - a.queryParams.length,
  );
}

/**
 * The order of matches of GRPCRoutes: exact methods before regular expressions; the longer service, then the longer method; more
 * headers.
 */
export function sortGrpcEntries(entries: readonly GrpcEntry[]): readonly GrpcEntry[] {
  return entries.toSorted(
    ({ match: a }, { match: b }) =>
      methodRank(a) - methodRank(b) ||
      lengthOf(b.method?.service) - lengthOf(a.method?.service) ||
      lengthOf(b.method?.method) - lengthOf(a.method?.method) ||
      b.headers.length - a.headers.length,
  );
}

/** Names before wildcards, longer wildcards before shorter, and what has no name last. Of one name only the first stays. */
export function sortTlsEntries(entries: readonly TlsEntry[]): readonly TlsEntry[] {
  const byName = new Map<string, TlsEntry>();
  for (const entry of entries) {
    const [name = ''] = entry.hostnames;
    if (!byName.has(name)) byName.set(name, entry);
  }
  return [...byName.values()].sort(
    ({ hostnames: [a = ''] }, { hostnames: [b = ''] }) => hostRank(a) - hostRank(b) || b.length - a.length,
  );
}

const NO_AGE = Number.MAX_SAFE_INTEGER;

function ageOf({ metadata }: RouteObject): number {
  return metadata.creationTimestampMs ?? NO_AGE;
}

function nameOf({ metadata }: RouteObject): string {
  return `${metadata.namespace}/${metadata.name}`;
}

const PATH_RANKS: Readonly<Record<'exact' | 'regex' | 'prefix', number>> = { exact: 0, regex: 1, prefix: 2 };

function pathRank({ path }: HttpMatch): number {
  return path === undefined ? 3 : PATH_RANKS[path.kind];
}

/** A final slash of a prefix says nothing. */
function pathLength({ path }: HttpMatch): number {
  if (path === undefined) return 0;
  return path.kind === 'prefix' ? path.value.replace(/\/+$/, '').length : path.value.length;
}

function methodRank({ method }: GrpcMatch): number {
  if (method === undefined) return 2;
  return method.kind === 'exact' ? 0 : 1;
}

function lengthOf(text = ''): number {
  return text.length;
}

function hostRank(name: string): number {
  if (name === '') return 2;
  return name.startsWith('*') ? 1 : 0;
}
