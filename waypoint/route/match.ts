import type { HeaderList } from '../exchange.ts';
import type { RequestMatch, Route, RouteTable, TextMatch } from '../model.ts';
import { firstValue, joinedValue } from './headers.ts';
import { queryValue } from './query.ts';

/** What routes look at. */
export interface MatchableRequest {
  readonly method: string;
  /** Canonical. */
  readonly path: string;
  /** From its question mark on, or empty. */
  readonly query: string;
  readonly headers: HeaderList;
  /** `Host` or `:authority`: what a match of the header `host` is about. */
  readonly authority: string;
}

/** Up to so many routes are looked at one after the other. */
const LINEAR = 8;

/** Where the routes of a table are, by their paths; numbers are places in the table, in order. */
interface PathIndex {
  readonly exact: ReadonlyMap<string, readonly number[]>;
  readonly prefixes: ReadonlyMap<string, readonly number[]>;
  readonly longestPrefix: number;
  readonly patterns: readonly number[];
}

const INDEXES: WeakMap<RouteTable, PathIndex> = new WeakMap();

/** The first route that fits; undefined: none. A table's index is made when it is first used, and goes with it. */
export function matchRoute(table: RouteTable, request: MatchableRequest): Route | undefined {
  const { routes } = table;
  if (routes.length <= LINEAR)
    return routes.find(({ match }) => pathMatches(match.path, request.path) && restMatches(match, request));
  return routes[findIndexed(routes, indexOf(table), request)];
}

/** Whether a value is as it is wanted. */
export function textMatches(match: TextMatch, value: string): boolean {
  return match.kind === 'exact' ? match.value === value : match.pattern.matches(value);
}

/**
 * Whether a header is there and fits. Of several lines of a name it is enough if one fits, as in Envoy, or all of them joined
 * (RFC 9110, 5.3). `host` is the request's authority, whatever the version of HTTP.
 */
export function headerMatches(
  { headers, authority }: Pick<MatchableRequest, 'headers' | 'authority'>,
  name: string,
  match: TextMatch,
): boolean {
  if (name === 'host') return textMatches(match, authority);
  const first = firstValue(headers, name);
  if (first === undefined) return false;
  if (textMatches(match, first)) return true;
  const joined = joinedValue(headers, name);
  if (joined === first || joined === undefined) return false;
  if (textMatches(match, joined)) return true;
  for (let index = 0; index < headers.length; index += 2)
    if (headers[index] === name && textMatches(match, headers[index + 1] ?? '')) return true;
  return false;
}

function pathMatches(match: RequestMatch['path'], path: string): boolean {
  switch (match.kind) {
    case 'exact':
      return match.value === path;
    case 'prefix': {
      if (!path.startsWith(match.value)) return false;
      const { length } = match.value;
      return path.length === length ? length > 0 : path[length] === '/';
    }
    case 'regex':
      return match.pattern.matches(path);
  }
}

function restMatches(match: RequestMatch, request: MatchableRequest): boolean {
  if (match.method !== undefined && match.method !== request.method) return false;
  for (const header of match.headers) if (!headerMatches(request, header.name, header.match)) return false;
  for (const { name, match: wanted } of match.query) {
    const value = queryValue(request.query, name);
    if (value === undefined || !textMatches(wanted, value)) return false;
  }
  return true;
}

function indexOf(table: RouteTable): PathIndex {
  const known = INDEXES.get(table);
  if (known !== undefined) return known;
  const exact = new Map<string, number[]>();
  const prefixes = new Map<string, number[]>();
  const patterns: number[] = [];
  let longestPrefix = 0;
  for (const [place, { match }] of table.routes.entries()) {
    if (match.path.kind === 'regex') {
      patterns.push(place);
      continue;
    }
    const { kind, value } = match.path;
    const places = kind === 'exact' ? exact : prefixes;
    if (kind === 'prefix') longestPrefix = Math.max(longestPrefix, value.length);
    const list = places.get(value);
    if (list === undefined) places.set(value, [place]);
    else list.push(place);
  }
  const index = { exact, prefixes, longestPrefix, patterns };
  INDEXES.set(table, index);
  return index;
}

/** Place of the first that fits; -1: none. */
function findIndexed(routes: readonly Route[], index: PathIndex, request: MatchableRequest): number {
  const { path } = request;
  let best = firstOf(routes, index.exact.get(path), routes.length, request);
  const limit = Math.min(path.length, index.longestPrefix);
  for (let end = 0; end <= limit; end += 1) {
    // Prefixes end before a slash, or with the path.
    if (end === path.length ? end > 0 : path[end] === '/')
      best = firstOf(routes, index.prefixes.get(path.slice(0, end)), best, request);
  }
  for (const place of index.patterns) {
    if (place >= best) break;
    const { match } = routes[place] ?? {};
    if (match !== undefined && pathMatches(match.path, path) && restMatches(match, request)) best = place;
  }
  return best === routes.length ? -1 : best;
}

/** The first of some places whose other conditions hold, if it comes before `best`. */
function firstOf(
  routes: readonly Route[],
  places: readonly number[] | undefined,
  best: number,
  request: MatchableRequest,
): number {
  for (const place of places ?? []) {
    if (place >= best) break;
    const route = routes[place];
    if (route !== undefined && restMatches(route.match, request)) return place;
  }
  return best;
}
