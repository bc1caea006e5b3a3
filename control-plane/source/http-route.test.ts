import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readText } from './read-text.ts';
import type { HttpRouteSpec, HttpRule } from './route-objects.ts';
import { settle } from './settle.ts';
import { problemsOf, readOne, readSet, specYaml } from './testing.ts';

const V1 = 'gateway.networking.k8s.io/v1';
const httpRoute = (spec: string, metadata = ''): string => specYaml(V1, 'HTTPRoute', spec, metadata);
const specOf = (spec: string): HttpRouteSpec => readOne(httpRoute(spec), 'HTTPRoute').spec;
const ruleOf = (rule: string): HttpRule => {
  const [first] = specOf(`{rules: [${rule}]}`).rules;
  if (first === undefined) throw new Error('no rule');
  return first;
};
const repeat = (count: number, item: (index: number) => string): string =>
  `[${Array.from({ length: count }, (_, index) => item(index)).join(', ')}]`;
const REF = '{name: a, port: 80}';

describe('an HTTPRoute', () => {
  test('has the defaults of the API where nothing is written', () => {
    expect(specOf('{parentRefs: [{name: gw}]}')).toEqual({
      parentRefs: [
        {
          group: 'gateway.networking.k8s.io',
          kind: 'Gateway',
          namespace: 'pay',
          name: 'gw',
          written: { name: 'gw' },
        },
      ],
      hostnames: [],
      rules: [
        {
          matches: [{ path: { kind: 'prefix', value: '/' }, headers: [], queryParams: [] }],
          filters: [],
          backendRefs: [],
          timeouts: {},
          unsupported: [],
        },
      ],
    });
  });

  test('keeps its generation', () => {
    expect(readOne(httpRoute('{}', 'generation: 4'), 'HTTPRoute').metadata.generation).toBe(4);
  });

  test.each(['v1', 'v1beta1', 'v1alpha2'])('may be of version %s', (version) => {
    const text = specYaml(`gateway.networking.k8s.io/${version}`, 'HTTPRoute', '{}');
    expect(problemsOf(text)).toEqual([]);
  });

  test('with a field that is not known is read all the same, with a warning', () => {
    const { objects, problems } = readSet(httpRoute('{rules: [{newField: 1}], mirror: x}'));
    expect(objects.size).toBe(1);
    expect(problems.map(({ severity, path }) => [severity, path])).toEqual([
      ['warning', 'spec.rules[0].newField'],
      ['warning', 'spec.mirror'],
    ]);
  });

  test('that is wrong leaves its last good version in force', () => {
    const fileOf = (spec: string) => [
      { path: 'a.yaml', ...readText('a.yaml', httpRoute(spec)), findings: [] },
    ];
    const good = settle(fileOf('{rules: [{name: good}]}'), new Map());
    const { objects, problems } = settle(fileOf('{rules: []}'), good.kept).set;
    expect(objects.get('HTTPRoute pay/r')).toMatchObject({ spec: { rules: [{ name: 'good' }] } });
    expect(problems).toMatchObject([
      { path: 'spec.rules', severity: 'error', effect: 'the last good version stays in force' },
    ]);
  });
});

describe('limits of the API', () => {
  test.each([
    {
      what: 'parentRefs',
      limit: 32,
      spec: (n: number) => `{parentRefs: ${repeat(n, (i) => `{name: a${i}}`)}}`,
    },
    {
      what: 'hostnames',
      limit: 16,
      spec: (n: number) => `{hostnames: ${repeat(n, (i) => `h${i}.example`)}}`,
    },
    { what: 'rules', limit: 16, spec: (n: number) => `{rules: ${repeat(n, () => '{}')}}` },
    {
      what: 'rules[0].matches',
      limit: 64,
      spec: (n: number) => `{rules: [{matches: ${repeat(n, () => '{}')}}]}`,
    },
    {
      what: 'rules[0].filters',
      limit: 16,
      spec: (n: number) =>
        `{rules: [{filters: ${repeat(n, () => `{type: RequestMirror, requestMirror: {backendRef: ${REF}}}`)}}]}`,
    },
    {
      what: 'rules[0].backendRefs',
      limit: 16,
      spec: (n: number) => `{rules: [{backendRefs: ${repeat(n, () => REF)}}]}`,
    },
    ...(['headers', 'queryParams'] as const).map((list) => ({
      what: `rules[0].matches[0].${list}`,
      limit: 16,
      spec: (n: number) =>
        `{rules: [{matches: [{${list}: ${repeat(n, (i) => `{name: n${i}, value: v}`)}}]}]}`,
    })),
  ])('spec.$what may have $limit entries, and no more', ({ what, limit, spec }) => {
    expect(problemsOf(httpRoute(spec(limit)))).toEqual([]);
    expect(problemsOf(httpRoute(spec(limit + 1)))).toEqual([
      `error spec.${what}: has too many entries, at most ${limit} are allowed`,
    ]);
  });

  test('all rules together have 128 matches at most', () => {
    const rules = (last: number): string =>
      `{rules: [{matches: ${repeat(64, () => '{}')}}, {matches: ${repeat(last, () => '{}')}}]}`;
    expect(problemsOf(httpRoute(rules(64)))).toEqual([]);
    expect(problemsOf(httpRoute(rules(64).replace(']}]}', ']}, {matches: [{}]}]}')))).toEqual([
      'error spec.rules: have 129 matches together, at most 128 are allowed',
    ]);
  });

  test('a path has 1024 characters at most', () => {
    const path = (length: number): string =>
      httpRoute(`{rules: [{matches: [{path: {value: /${'a'.repeat(length - 1)}}}]}]}`);
    expect(problemsOf(path(1024))).toEqual([]);
    expect(problemsOf(path(1025))).toHaveLength(1);
  });
});

describe('a path', () => {
  test.each([
    'abc',
    '/a//b',
    '/a/./b',
    '/a/../b',
    '/a%2fb',
    '/a%2Fb',
    '/a#b',
    '/a/..',
    '/a/.',
    '/a b',
    '/a?b',
    '/ä',
    '/%zz',
    '/a/%2e%2E/b',
  ])('%s is refused as Exact and as PathPrefix', (value) => {
    for (const type of ['Exact', 'PathPrefix']) {
      const [problem, ...others] = problemsOf(
        httpRoute(`{rules: [{matches: [{path: {type: ${type}, value: ${JSON.stringify(value)}}}]}]}`),
      );
      expect(problem).toContain('error spec.rules[0].matches[0].path.value');
      expect(others).toEqual([]);
    }
  });

  test('has its escapes as those of requests are when they are compared', () => {
    const { matches } = ruleOf('{matches: [{path: {value: "/%7eann/%c3%a4%20%41"}}]}');
    expect(matches[0]?.path).toEqual({ kind: 'prefix', value: '/~ann/%C3%A4%20A' });
  });

  test.each([
    { type: 'Exact', value: '/a/b.c/..d', kind: 'exact' },
    { type: 'PathPrefix', value: '/a;x=1/%20', kind: 'prefix' },
    { type: 'RegularExpression', value: '^a|/b//c#', kind: 'regex' },
  ])('$value is a $type', ({ type, value, kind }) => {
    const { matches } = ruleOf(`{matches: [{path: {type: ${type}, value: ${JSON.stringify(value)}}}]}`);
    expect(matches[0]?.path).toEqual({ kind, value });
  });

  test.each(['[', '(?<=a)b', '\\1', 'a{1001}', '((a{100}){100}){100}'])(
    'regular expression %s is not supported: RE2 does not have it, or it would grow too large',
    (value) => {
      const rule = ruleOf(`{matches: [{path: {type: RegularExpression, value: ${JSON.stringify(value)}}}]}`);
      expect(rule.matches[0]?.path).toBeUndefined();
      expect(rule.unsupported).toMatchObject([
        {
          path: 'spec.rules[0].matches[0].path.value',
          reason: expect.stringContaining('is not a regular expression of RE2'),
        },
      ]);
    },
  );
});

describe('matches on headers and query parameters', () => {
  test('compare names of headers without case, those of parameters with it, and keep the first of a name', () => {
    const { objects, problems } = readSet(
      httpRoute(`{rules: [{matches: [{
        headers: [{name: X-A, value: one}, {name: x-a, value: two}, {name: b, value: "3+", type: RegularExpression}],
        queryParams: [{name: Q, value: one}, {name: q, value: two}, {name: Q, value: three}]}]}]}`),
    );
    const route = objects.get('HTTPRoute pay/r');
    const match = route?.kind === 'HTTPRoute' ? route.spec.rules[0]?.matches[0] : undefined;
    expect(match?.headers).toEqual([
      { name: 'x-a', match: { kind: 'exact', value: 'one' } },
      { name: 'b', match: { kind: 'regex', value: '3+' } },
    ]);
    expect(match?.queryParams.map(({ name, match: { value } }) => `${name}=${value}`)).toEqual([
      'Q=one',
      'q=two',
    ]);
    expect(problems.map(({ severity, path }) => `${severity} ${path}`)).toEqual([
      'warning spec.rules[0].matches[0].headers[1]',
      'warning spec.rules[0].matches[0].queryParams[2]',
    ]);
  });

  test.each([
    { fault: 'a name with a space', match: 'headers: [{name: a b, value: c}]', at: 'headers[0].name' },
    { fault: 'an empty name', match: 'headers: [{name: "", value: c}]', at: 'headers[0].name' },
    { fault: 'an empty value', match: 'headers: [{name: a, value: ""}]', at: 'headers[0].value' },
    {
      fault: 'a line break in a value',
      match: 'headers: [{name: a, value: "b\\r\\nc"}]',
      at: 'headers[0].value',
    },
    { fault: 'a value that is a number', match: 'headers: [{name: a, value: 1}]', at: 'headers[0].value' },
  ])('with $fault are refused', ({ match, at }) => {
    const problems = problemsOf(httpRoute(`{rules: [{matches: [{${match}}]}]}`));
    expect(problems).toEqual([expect.stringContaining(`error spec.rules[0].matches[0].${at}: `)]);
  });

  test.each(['headers', 'queryParams'])('whose regular expression is none are not supported: %s', (field) => {
    const bad = '{name: a, type: RegularExpression, value: "("}';
    const rule = ruleOf(`{matches: [{${field}: [${bad}, {name: b, value: c}]}]}`);
    expect(rule.matches[0]).toMatchObject({ [field]: [{ name: 'b' }] });
    expect(rule.unsupported).toMatchObject([{ path: `spec.rules[0].matches[0].${field}[0].value` }]);
  });
});

describe('parentRefs', () => {
  test.each([
    { fault: 'one twice', refs: '[{name: a, port: 1}, {name: a, port: 1}]', at: '[1]' },
    { fault: 'one with and without port', refs: '[{name: a}, {name: a, port: 1}]', at: '[0]' },
    { fault: 'a port that is none', refs: '[{name: a, port: 0}]', at: '[0].port' },
    { fault: 'a namespace that is none', refs: '[{name: a, namespace: A}]', at: '[0].namespace' },
    { fault: 'no name', refs: '[{kind: Service}]', at: '[0].name' },
  ])('with $fault are refused', ({ refs, at }) => {
    expect(problemsOf(httpRoute(`{parentRefs: ${refs}}`))).toEqual([
      expect.stringContaining(`error spec.parentRefs${at}: `),
    ]);
  });

  test('may name several ports of a parent, and keep what is written apart from the defaults', () => {
    const written = { group: '', kind: 'Service', name: 'a', port: 1 };
    const { parentRefs } = specOf(
      '{parentRefs: [{group: "", kind: Service, name: a, port: 1}, {group: "", kind: Service, name: a, port: 2}]}',
    );
    expect(parentRefs.map((ref) => ref.written)).toEqual([written, { ...written, port: 2 }]);
    expect(parentRefs[0]).toMatchObject({ namespace: 'pay' });
  });
});

describe('a rule', () => {
  test.each([
    { fault: 'a backend without port', rule: '{backendRefs: [{name: a}]}', at: 'backendRefs[0].port' },
    {
      fault: 'a weight above 1000000',
      rule: '{backendRefs: [{name: a, port: 1, weight: 1000001}]}',
      at: 'backendRefs[0].weight',
    },
    {
      fault: 'a weight below 0',
      rule: '{backendRefs: [{name: a, port: 1, weight: -1}]}',
      at: 'backendRefs[0].weight',
    },
    {
      fault: 'a weight with a fraction',
      rule: '{backendRefs: [{name: a, port: 1, weight: 0.5}]}',
      at: 'backendRefs[0].weight',
    },
    {
      fault: 'a port above 65535',
      rule: '{backendRefs: [{name: a, port: 65536}]}',
      at: 'backendRefs[0].port',
    },
    {
      fault: 'an attempt longer than the request',
      rule: '{timeouts: {request: 1s, backendRequest: 1001ms}}',
      at: 'timeouts.backendRequest',
    },
    { fault: 'a duration with a fraction', rule: '{timeouts: {request: 1.5s}}', at: 'timeouts.request' },
    { fault: 'a duration without unit', rule: '{timeouts: {request: "10"}}', at: 'timeouts.request' },
    { fault: 'a duration of five parts', rule: '{timeouts: {request: 1h1h1h1h1h}}', at: 'timeouts.request' },
    { fault: 'a duration of six digits', rule: '{timeouts: {request: 100000s}}', at: 'timeouts.request' },
    { fault: 'a negative duration', rule: '{timeouts: {request: -1s}}', at: 'timeouts.request' },
    { fault: 'a duration in days', rule: '{timeouts: {request: 1d}}', at: 'timeouts.request' },
    { fault: 'a code that is no failure', rule: '{retry: {codes: [399]}}', at: 'retry.codes[0]' },
    { fault: 'a code that is no status', rule: '{retry: {codes: [600]}}', at: 'retry.codes[0]' },
    { fault: 'a code twice', rule: '{retry: {codes: [500, 503, 500]}}', at: 'retry.codes[2]' },
    { fault: 'no attempt', rule: '{retry: {attempts: 0}}', at: 'retry.attempts' },
    { fault: 'too many attempts', rule: '{retry: {attempts: 4294967296}}', at: 'retry.attempts' },
    {
      fault: 'a permanent cookie without end',
      rule: '{sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}}',
      at: 'sessionPersistence.absoluteTimeout',
    },
    {
      fault: 'a cookie beside type Header',
      rule: '{sessionPersistence: {type: Header, cookieConfig: {}}}',
      at: 'sessionPersistence.cookieConfig',
    },
    { fault: 'a name that is none', rule: '{name: A_b}', at: 'name' },
  ])('with $fault is refused', ({ rule, at }) => {
    expect(problemsOf(httpRoute(`{rules: [${rule}]}`))).toEqual([
      expect.stringContaining(`error spec.rules[0].${at}: `),
    ]);
  });

  test('may not have the name of another', () => {
    expect(problemsOf(httpRoute('{rules: [{name: a}, {name: b}, {name: a}]}'))).toEqual([
      'error spec.rules[2].name: "a" is there twice',
    ]);
  });

  test('has its timeouts and retries in milliseconds', () => {
    const rule =
      '{timeouts: {request: 1m30s, backendRequest: 0s}, retry: {codes: [503], backoff: 1h1m1s1ms}}';
    expect(ruleOf(rule)).toMatchObject({
      timeouts: { requestMs: 90_000, backendRequestMs: 0 },
      retry: { codes: [503], attempts: 1, backoffMs: 3_661_001 },
    });
  });

  test('may have an attempt without limit beside a limited request, and the other way round', () => {
    for (const timeouts of ['{request: 1s, backendRequest: 0s}', '{request: 0s, backendRequest: 5s}'])
      expect(ruleOf(`{timeouts: ${timeouts}}`).unsupported).toEqual([]);
  });

  test('names its session in the words of any version', () => {
    const names = [
      '{}',
      '{sessionName: s}',
      '{type: Header}',
      '{type: Header, header: {name: x-s}}',
      '{cookie: {name: c, path: /a, lifetimeType: Permanent}, absoluteTimeout: 1h}',
    ].map((session) => ruleOf(`{sessionPersistence: ${session}}`).sessionPersistence);
    expect(names).toEqual([
      { kind: 'cookie', name: 'tulle-session', lifetime: 'session' },
      { kind: 'cookie', name: 's', lifetime: 'session' },
      { kind: 'header', name: 'x-tulle-session', lifetime: 'session' },
      { kind: 'header', name: 'x-s', lifetime: 'session' },
      { kind: 'cookie', name: 'c', path: '/a', lifetime: 'permanent', absoluteTimeoutMs: 3_600_000 },
    ]);
  });
});

test('durations of up to four parts are the sum of them', () => {
  const part = fc.tuple(fc.integer({ min: 0, max: 99_999 }), fc.constantFrom('h', 'm', 's', 'ms'));
  const ms: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 };
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), (parts) => {
      const text = parts.map(([count, unit]) => `${count}${unit}`).join('');
      const sum = parts.reduce((total, [count, unit]) => total + count * (ms[unit] ?? Number.NaN), 0);
      expect(ruleOf(`{timeouts: {request: ${text}}}`).timeouts.requestMs).toBe(sum);
    }),
  );
});

test.each([
  ['{type: Header, sessionName: Host}', 'sessionName'],
  ['{type: Header, header: {name: transfer-encoding}}', 'header.name'],
])('a session cannot be kept in a header of the message itself: %s', (session, field) => {
  const rule = ruleOf(`{sessionPersistence: ${session}}`);
  expect(rule.sessionPersistence).toBeUndefined();
  expect(rule.unsupported).toMatchObject([{ path: `spec.rules[0].sessionPersistence.${field}` }]);
});

test('what the API may have one day is kept as not supported, with its place', () => {
  const rule = ruleOf(`{
    matches: [{path: {type: Glob, value: "//"}, method: PURGE, headers: [{type: Near, name: a, value: b}, {name: c, value: d}]}],
    sessionPersistence: {type: Query}}`);
  expect(rule.matches).toEqual([
    { path: undefined, headers: [{ name: 'c', match: { kind: 'exact', value: 'd' } }], queryParams: [] },
  ]);
  expect(rule.unsupported.map(({ path }) => path)).toEqual([
    'spec.rules[0].sessionPersistence.type',
    'spec.rules[0].matches[0].path.type',
    'spec.rules[0].matches[0].method',
    'spec.rules[0].matches[0].headers[0].type',
  ]);
});

test('nothing that is written in the words of a route makes reading throw', () => {
  const words = fc.constantFrom(
    ...[
      'rules',
      'matches',
      'path',
      'type',
      'value',
      'headers',
      'name',
      'filters',
      'backendRefs',
      'port',
      'weight',
    ],
    ...[
      'requestRedirect',
      'urlRewrite',
      'replacePrefixMatch',
      'requestMirror',
      'backendRef',
      'cors',
      'timeouts',
    ],
    ...['request', 'retry', 'codes', 'sessionPersistence', 'parentRefs', 'hostnames', 'method', 'service'],
    ...['targetRefs', 'faults', 'delay', 'abort', 'match', 'from', 'to', 'validation', 'caCertificateRefs'],
  );
  const leaf = fc.oneof(
    words,
    fc.constantFrom(
      'PathPrefix',
      'RegularExpression',
      'URLRewrite',
      'RequestRedirect',
      'Header',
      '/a',
      '[',
      '1s',
    ),
    fc.integer({ min: -1, max: 600 }),
    fc.constant(null),
  );
  const { value } = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 6, withCrossShrink: true },
      leaf,
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(words, tie('value'), { maxKeys: 6 }),
    ),
  }));
  const kinds = fc.constantFrom(
    ...[
      'HTTPRoute',
      'GRPCRoute',
      'TCPRoute',
      'TLSRoute',
      'ReferenceGrant',
      'BackendTLSPolicy',
      'GatewayClass',
    ].map((kind) => [V1, kind]),
    ['tulle.dev/v1alpha1', 'TrafficPolicy'],
    ['security.istio.io/v1', 'RequestAuthentication'],
  );
  fc.assert(
    fc.property(kinds, fc.dictionary(words, value, { maxKeys: 6 }), ([apiVersion, kind], spec) => {
      readSet(JSON.stringify({ apiVersion, kind, metadata: { name: 'r' }, spec }));
    }),
    { numRuns: 500 },
  );
});
