import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { objectYaml } from '#test/kit/objects.ts';
import { attachText, frontendOf } from './testing.ts';

const SERVICE = objectYaml(
  'Service',
  'pay/ledger',
  '{ports: [{name: http, port: 80}, {name: tls, port: 443}]}',
);
const at = (port: number): string => `parentRefs: [{group: "", kind: Service, name: ledger, port: ${port}}]`;
const BACKEND = 'backendRefs: [{name: ledger, port: 80}]';

function httpRoute(name: string, matches: readonly string[], metadata = ''): string {
  const rules = matches.map((match) => `{matches: [${match}], ${BACKEND}}`);
  return objectYaml('HTTPRoute', `pay/${name}`, `{${at(80)}, rules: [${rules.join(', ')}]}`, metadata);
}

/** `a 0 0`: route, rule, match. */
function order(text: string): readonly string[] {
  return frontendOf(attachText(SERVICE + text), 'http').entries.map(
    ({ object, rule, matchIndex }) => `${object.slice('HTTPRoute pay/'.length)} ${rule} ${matchIndex}`,
  );
}

const exact = (value: string, rest = ''): string => `{path: {type: Exact, value: ${value}}${rest}}`;
const prefix = (value: string, rest = ''): string => `{path: {value: ${value}}${rest}}`;
const regex = (value: string, rest = ''): string =>
  `{path: {type: RegularExpression, value: ${value}}${rest}}`;
const header = (name: string): string => `{name: ${name}, value: a}`;

describe('of two matches', () => {
  test.each([
    { first: 'an exact path', second: 'a longer prefix', a: exact('/a'), b: prefix('/a/b/c') },
    { first: 'an exact path', second: 'a longer regular expression', a: exact('/a'), b: regex('/a/b.*') },
    { first: 'a regular expression', second: 'a longer prefix', a: regex('/.'), b: prefix('/a/b/c') },
    { first: 'the longer regular expression', second: 'the shorter', a: regex('/ab.*'), b: regex('/a.*') },
    { first: 'the longer prefix', second: 'the shorter', a: prefix('/a/b'), b: prefix('/a') },
    {
      first: 'the longer prefix',
      second: 'a shorter with everything else',
      a: prefix('/a/b'),
      b: prefix('/a', `, method: GET, headers: [${header('x')}], queryParams: [${header('y')}]`),
    },
    {
      first: 'one with a method',
      second: 'one with headers and parameters',
      a: prefix('/a', ', method: GET'),
      b: prefix('/a', `, headers: [${header('x')}, ${header('z')}], queryParams: [${header('y')}]`),
    },
    {
      first: 'one with more headers',
      second: 'one with more parameters',
      a: prefix('/a', `, headers: [${header('x')}]`),
      b: prefix('/a', `, queryParams: [${header('y')}, ${header('z')}]`),
    },
    {
      first: 'one with more parameters',
      second: 'one with fewer',
      a: prefix('/a', `, queryParams: [${header('y')}, ${header('z')}]`),
      b: prefix('/a', `, queryParams: [${header('y')}]`),
    },
  ])('$first comes before $second, wherever they are written', ({ a, b }) => {
    expect(order(httpRoute('r', [b, a]))).toEqual(['r 1 0', 'r 0 0']);
    expect(order(httpRoute('r', [a, b]))).toEqual(['r 0 0', 'r 1 0']);
    // Not even the age of the route counts.
    const old = httpRoute('b', [b], 'creationTimestamp: "2020-01-01T00:00:00Z"');
    expect(order(old + httpRoute('a', [a]))).toEqual(['a 0 0', 'b 0 0']);
  });

  test('a header that is there twice counts once', () => {
    const twice = prefix('/a', `, headers: [${header('X')}, ${header('x')}]`);
    const once = prefix('/a', `, headers: [${header('x')}]`);
    expect(order(httpRoute('r', [once, twice]))).toEqual(['r 0 0', 'r 1 0']);
  });

  test('a final slash makes a prefix no longer', () => {
    expect(order(httpRoute('r', [prefix('/a'), prefix('/a/')]))).toEqual(['r 0 0', 'r 1 0']);
  });
});

describe('matches that are equally specific come', () => {
  const ALL = prefix('/');

  test('by the age of their routes', () => {
    const text =
      httpRoute('a', [ALL], 'creationTimestamp: "2021-01-01T00:00:00Z"') +
      httpRoute('b', [ALL], 'creationTimestamp: "2020-01-01T00:00:00Z"') +
      httpRoute('c', [ALL]);
    expect(order(text)).toEqual(['b 0 0', 'a 0 0', 'c 0 0']);
  });

  test('by namespace and name', () => {
    expect(order(httpRoute('b', [ALL]) + httpRoute('a', [ALL]))).toEqual(['a 0 0', 'b 0 0']);
  });

  test('in the order of the rules', () => {
    expect(order(httpRoute('r', [ALL, `${ALL}, ${ALL}`]))).toEqual(['r 0 0', 'r 1 0', 'r 1 1']);
  });
});

test('the order in which objects come says nothing', () => {
  const routes = [
    httpRoute('a', [prefix('/a'), exact('/b')]),
    httpRoute('b', [prefix('/a'), regex('/b.*')], 'creationTimestamp: "2020-01-01T00:00:00Z"'),
    httpRoute('c', [prefix('/a', ', method: GET'), prefix('/')]),
    httpRoute('d', [prefix('/')], 'creationTimestamp: "2020-01-01T00:00:00Z"'),
  ];
  const expected = order(routes.join(''));
  fc.assert(
    fc.property(fc.shuffledSubarray(routes, { minLength: routes.length }), (shuffled) => {
      expect(order(shuffled.join(''))).toEqual(expected);
    }),
    { numRuns: 30 },
  );
});

describe('of two matches of GRPCRoutes', () => {
  function grpcOrder(matches: readonly string[]): readonly number[] {
    const rules = matches.map((match) => `{matches: [${match}], ${BACKEND}}`);
    const text = objectYaml('GRPCRoute', 'pay/g', `{${at(80)}, rules: [${rules.join(', ')}]}`);
    return frontendOf(attachText(SERVICE + text), 'grpc').entries.map(({ rule }) => rule);
  }

  test.each([
    {
      first: 'the longer service',
      second: 'the longer method',
      a: '{method: {service: a.bc}}',
      b: '{method: {service: a.b, method: Longest}}',
    },
    {
      first: 'the longer method',
      second: 'more headers',
      a: '{method: {service: a, method: Get}}',
      b: `{method: {service: a}, headers: [${header('x')}]}`,
    },
    {
      first: 'more headers',
      second: 'fewer',
      a: `{method: {service: a}, headers: [${header('x')}]}`,
      b: '{method: {service: a}}',
    },
    {
      first: 'an exact service',
      second: 'a longer regular expression',
      a: '{method: {service: a}}',
      b: '{method: {type: RegularExpression, service: "a.*"}}',
    },
    {
      first: 'a method',
      second: 'headers alone',
      a: '{method: {method: Get}}',
      b: `{headers: [${header('x')}]}`,
    },
  ])('$first comes before $second', ({ a, b }) => {
    expect(grpcOrder([b, a])).toEqual([1, 0]);
    expect(grpcOrder([a, b])).toEqual([0, 1]);
  });

  test('a rule without matches is for every call', () => {
    const text = objectYaml('GRPCRoute', 'pay/g', `{${at(80)}, rules: [{${BACKEND}}]}`);
    const { entries } = frontendOf(attachText(SERVICE + text), 'grpc');
    expect(entries).toMatchObject([{ match: { method: undefined, headers: [] }, rule: 0, matchIndex: 0 }]);
  });
});

test('names of TLSRoutes come before wildcards, longer wildcards before shorter, none last, each once', () => {
  const tls = (name: string, hostnames: string, metadata = ''): string =>
    objectYaml('TLSRoute', `pay/${name}`, `{${at(443)}, ${hostnames}rules: [{${BACKEND}}]}`, metadata);
  const text =
    tls('a', '') +
    tls(
      'b',
      'hostnames: ["*.shop.example", api.shop.example], ',
      'creationTimestamp: "2020-01-01T00:00:00Z"',
    ) +
    tls('c', 'hostnames: ["*.eu.shop.example", api.shop.example], ');
  const { entries } = frontendOf(attachText(SERVICE + text), 'tls');
  expect(entries.map(({ object, hostnames }) => [object, ...hostnames])).toEqual([
    ['TLSRoute pay/b', 'api.shop.example'],
    ['TLSRoute pay/c', '*.eu.shop.example'],
    ['TLSRoute pay/b', '*.shop.example'],
    ['TLSRoute pay/a'],
  ]);
});
