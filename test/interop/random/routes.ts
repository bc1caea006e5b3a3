import fc from 'fast-check';
import { cors, headerFilters, MIRRORS, redirect, rewrite, type WrittenFilter } from './filters.ts';

/** A value that is matched by name. */
export interface WrittenValueMatch {
  readonly type: 'Exact' | 'RegularExpression';
  readonly name: string;
  readonly value: string;
}

/** A match of an HTTPRoute. */
export interface WrittenMatch {
  readonly path: { readonly type: 'Exact' | 'PathPrefix' | 'RegularExpression'; readonly value: string };
  readonly headers?: readonly WrittenValueMatch[];
  readonly queryParams?: readonly WrittenValueMatch[];
  readonly method?: string;
}

/** A backend of a rule. */
export interface WrittenBackend {
  readonly name: string;
  readonly port: number;
  readonly weight: number;
  readonly filters: readonly WrittenFilter[];
}

/** A rule of an HTTPRoute. */
export interface WrittenRule {
  readonly matches: readonly WrittenMatch[];
  readonly filters: readonly WrittenFilter[];
  readonly backendRefs: readonly WrittenBackend[];
  readonly timeouts?: { readonly request?: string; readonly backendRequest?: string };
  readonly retry?: {
    readonly codes?: readonly number[];
    readonly attempts: number;
    readonly backoff?: string;
  };
}

/** An HTTPRoute; without a port it is for all ports of its service. */
export interface WrittenRoute {
  readonly kind: 'HTTPRoute';
  readonly port?: number;
  readonly rules: readonly WrittenRule[];
}

const { array, constantFrom, integer, option, record, uniqueArray } = fc;

const PREFIXES = [
  ...[
    '/',
    '/',
    '/a',
    '/a/',
    '/a/b',
    '/A',
    '/api/v1',
    '/a%20b',
    '/x.y',
    '/a;v=1',
    "/!$&'()*+,;=:@",
    '/%7euser',
  ],
] as const;
const EXACT = ['/', '/a', '/a/', '/a/b', '/api', '/caf%c3%a9', '/x.y/', "/!$&'()*+,;=:@", '/a%3Fb'] as const;

/** Regular expressions of paths, each with paths near it. */
export const PATH_REGEXES: ReadonlyMap<string, readonly string[]> = new Map([
  ['/v[0-9]+/.*', ['/v1/', '/v22/x/y', '/v1', '/x/v1/']],
  ['/(a|b)/c?', ['/a/', '/b/c', '/a/cc']],
  ['/items/[^/]+', ['/items/1', '/items/', '/items/1/2', '/items/a%20b']],
  ['.*', ['/', '/any/thing']],
  ['/[[:alpha:]]+', ['/abc', '/ab1']],
  ['(?i)/Case', ['/case', '/CASE', '/cases']],
  ['^/anchored$', ['/anchored', '/anchored/']],
  ['/a.b|/b', ['/a.b', '/axb', '/b', '/bb']],
  ['/x{2,3}', ['/xx', '/xxx', '/xxxx']],
  ['/.*\\.(png|jpg)', ['/a/b.png', '/.jpg', '/a.pngx']],
  ['/\\w+(?:/\\d*)?', ['/a_1', '/a/', '/a/12', '/a-b']],
  ['/a\\+b', ['/a+b', '/aab']],
]);

/** Regular expressions of values, each with values near it. */
export const VALUE_REGEXES: ReadonlyMap<string, readonly string[]> = new Map([
  ['1|2', ['1', '2', '12']],
  ['^a', ['a', 'ab', 'ba']],
  ['[0-9]+', ['42', '4a', '']],
  ['.+', ['x', '']],
  ['.*', ['', 'anything at all']],
  ['(?i)one', ['ONE', 'one', 'ones']],
  ['(^|.*; )c=1(;.*|$)', ['c=1', 'a=2; c=1', 'c=12', 'c=1; d=3']],
  ['a,b', ['a,b', 'a, b']],
]);

const EXACT_VALUES = ['1', 'one', 'a,b', 'a b', '100%', '"q"', 'a%20b', 'a+b', 'A', '*', 'a=b'] as const;

function valueMatch(names: readonly string[]): fc.Arbitrary<WrittenValueMatch> {
  const name = constantFrom(...names);
  return fc.oneof(
    record({ type: fc.constant('Exact' as const), name, value: constantFrom(...EXACT_VALUES) }),
    record({
      type: fc.constant('RegularExpression' as const),
      name,
      value: constantFrom(...VALUE_REGEXES.keys()),
    }),
  );
}

const headerMatches = array(
  valueMatch(['x-a', 'X-A', 'x-b', 'version', 'cookie', 'User-Agent', 'accept', 'host']),
  {
    maxLength: 2,
  },
);
const queryMatches = array(valueMatch(['q', 'Q', 'q.r', 'q-1', '~q']), { maxLength: 2 });
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'TRACE'] as const;

const pathMatch = fc.oneof(
  { weight: 5, arbitrary: typed('PathPrefix', constantFrom(...PREFIXES)) },
  { weight: 3, arbitrary: typed('Exact', constantFrom(...EXACT)) },
  { weight: 3, arbitrary: typed('RegularExpression', constantFrom(...PATH_REGEXES.keys())) },
);

function typed<T extends string>(
  type: T,
  value: fc.Arbitrary<string>,
): fc.Arbitrary<{ readonly type: T; readonly value: string }> {
  return record({ type: fc.constant(type), value });
}

const match: fc.Arbitrary<WrittenMatch> = record(
  {
    path: pathMatch,
    headers: headerMatches,
    queryParams: queryMatches,
    method: constantFrom(...METHODS),
  },
  { requiredKeys: ['path'] },
).chain((full) =>
  // Most rules look at the path only, or they would hardly ever be met.
  fc.oneof(
    { weight: 3, arbitrary: fc.constant({ path: full.path }) },
    { weight: 2, arbitrary: fc.constant(full) },
  ),
);

/** Several hosts each, or none, or none that answers. */
const GOOD = ['a', 'b', 'c', 'pair', 'trio', 'h2', 'h2-pair'] as const;
const BAD = ['dead', 'empty', 'missing'] as const;

const backend: fc.Arbitrary<WrittenBackend> = record({
  name: fc.oneof(
    { weight: 8, arbitrary: constantFrom(...GOOD) },
    { weight: 1, arbitrary: constantFrom(...BAD) },
  ),
  port: fc.constant(80),
  weight: constantFrom(1, 1, 1, 2, 0),
  filters: headerFilters,
});

const backends = uniqueArray(backend, { minLength: 1, maxLength: 3, selector: ({ name }) => name }).map(
  (all) =>
    // One alone does not show whose turn it is; most rules have one, as most rules in the world have.
    all.length === 3 ? all : all.slice(0, 1).map((one) => ({ ...one, weight: 1 })),
);

const timeouts = constantFrom(
  { request: '600ms' },
  { backendRequest: '600ms' },
  { request: '2s', backendRequest: '600ms' },
  { request: '0s' },
  { request: '1m', backendRequest: '0s' },
);
const retry = record({
  codes: uniqueArray(constantFrom(500, 502, 503, 504, 429, 404, 418), { maxLength: 3 }),
  attempts: integer({ min: 1, max: 3 }),
  backoff: constantFrom('1ms', '10ms', '50ms'),
});

/** What is done to requests of a rule: a redirect or none, and so on. */
function filters(hasPrefix: boolean, mayMirror: boolean): fc.Arbitrary<readonly WrittenFilter[]> {
  const none = fc.constant<readonly WrittenFilter[]>([]);
  const one = (filter: fc.Arbitrary<WrittenFilter>): fc.Arbitrary<readonly WrittenFilter[]> =>
    filter.map((only) => [only]);
  return fc
    .tuple(
      headerFilters,
      fc.oneof(none, none, one(rewrite(hasPrefix)), one(redirect(hasPrefix))),
      fc.oneof(none, none, one(cors)),
      mayMirror ? fc.constant(MIRRORS) : none,
    )
    .map((lists) => lists.flat());
}

function rule(mayMirror: boolean): fc.Arbitrary<WrittenRule> {
  return array(match, { minLength: 1, maxLength: 2 }).chain((matches) => {
    const hasPrefix = matches.length === 1 && matches[0]?.path.type === 'PathPrefix';
    return record({
      matches: fc.constant(matches),
      filters: filters(hasPrefix, mayMirror),
      backendRefs: backends,
      timeouts: option(timeouts, { freq: 3 }),
      retry: option(retry, { freq: 3 }),
    }).map(withoutBackends);
  });
}

/** Where everything is sent elsewhere there are no backends. */
function withoutBackends({
  timeouts: limits,
  retry: again,
  ...written
}: Omit<WrittenRule, 'timeouts' | 'retry'> & {
  readonly timeouts: WrittenRule['timeouts'] | null;
  readonly retry: WrittenRule['retry'] | null;
}): WrittenRule {
  const isRedirect = written.filters.some(({ type }) => type === 'RequestRedirect');
  return {
    ...written,
    filters: isRedirect ? written.filters.filter(({ type }) => type !== 'RequestMirror') : written.filters,
    backendRefs: isRedirect ? [] : written.backendRefs,
    ...(limits && !isRedirect && { timeouts: limits }),
    ...(again && !isRedirect && { retry: again }),
  };
}

/** The routes of a service; `mayMirror` gives every rule mirrors. */
export function httpRoutes(mayMirror: boolean): fc.Arbitrary<readonly WrittenRoute[]> {
  const route = record(
    {
      kind: fc.constant('HTTPRoute' as const),
      port: constantFrom(80, 8080),
      rules: array(rule(mayMirror), { minLength: 1, maxLength: 4 }),
    },
    { requiredKeys: ['kind', 'rules'] },
  );
  return array(route, { minLength: 1, maxLength: 3 }) as fc.Arbitrary<readonly WrittenRoute[]>;
}
