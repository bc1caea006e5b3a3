import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { RouteTable } from '../model.ts';
import { type MatchableRequest, matchRoute } from './match.ts';
import { match, pathOf, route, table, textOf } from './testing.ts';

function request(overrides: Partial<MatchableRequest> = {}): MatchableRequest {
  return { method: 'GET', path: '/', query: '', headers: [], authority: 'ledger', ...overrides };
}

describe('a path', () => {
  test.each([
    ['/', '/', true],
    ['/', '/a', true],
    ['/', '*', false],
    ['/abc', '/abc', true],
    ['/abc', '/abc/', true],
    ['/abc', '/abc/d', true],
    ['/abc', '/abcd', false],
    ['/abc', '/ABC', false],
    ['/abc', '/ab', false],
    ['=/abc', '/abc', true],
    ['=/abc', '/abc/', false],
    ['~/a[0-9]+', '/a12', true],
    ['~/a[0-9]+', '/a12/', false],
    ['~/a[0-9]+', '/x/a12', false],
    ['~/pay\\.Ledger/.*', '/pay.Ledger/Get', true],
  ])('matched by %s: %s is %s', (by, path, wanted) => {
    const only = table(route({ match: match({ path: pathOf(by) }) }));
    expect(matchRoute(only, request({ path })) !== undefined).toBe(wanted);
  });
});

describe('headers', () => {
  test.each([
    ['1', ['x-a', '1'], true],
    ['1', ['x-b', '1'], false],
    ['1', ['x-a', '12'], false],
    ['', ['x-a', ''], true],
    ['~v[12]', ['x-a', 'v2'], true],
    ['~v[12]', ['x-a', 'v23'], false],
    ['2', ['x-a', '1', 'x-b', '3', 'x-a', '2'], true],
    ['1, 2', ['x-a', '1', 'x-a', '2'], true],
    ['1,2', ['x-a', '1,2'], true],
    ['3', ['x-a', '1', 'x-a', '2'], false],
  ])('x-a as %s in %j: %s', (value, headers, wanted) => {
    const by = match({ headers: [{ name: 'x-a', match: textOf(value) }] });
    expect(matchRoute(table(route({ match: by })), request({ headers })) !== undefined).toBe(wanted);
  });

  test('that is host is the authority', () => {
    const at = (value: string): RouteTable =>
      table(route({ match: match({ headers: [{ name: 'host', match: textOf(value) }] }) }));
    expect(matchRoute(at('ledger'), request())).toBeDefined();
    expect(matchRoute(at('~.*:80'), request({ authority: 'ledger:80' }))).toBeDefined();
    expect(matchRoute(at('ledger'), request({ authority: 'ledger:80' }))).toBeUndefined();
  });
});

describe('query parameters', () => {
  test.each([
    ['1', '?a=1', true],
    ['1', '?b=2&a=1&c', true],
    ['1', '?a=1&a=2', true],
    ['1', '?a=2&a=1', false],
    ['', '?a', true],
    ['', '?a=', true],
    ['1', '', false],
    ['1', '?ab=1', false],
    ['1', '?A=1', false],
    ['x%20y', '?a=x%20y', true],
    ['x y', '?a=x%20y', false],
    ['~[0-9]+', '?a=12', true],
  ])('a as %s in %s: %s', (value, query, wanted) => {
    const by = match({ query: [{ name: 'a', match: textOf(value) }] });
    expect(matchRoute(table(route({ match: by })), request({ query })) !== undefined).toBe(wanted);
  });
});

test('all parts of a match have to hold', () => {
  const by = match({
    path: pathOf('/v2'),
    method: 'POST',
    headers: [{ name: 'version', match: textOf('two') }],
    query: [{ name: 'q', match: textOf('1') }],
  });
  const whole = request({ method: 'POST', path: '/v2/x', query: '?q=1', headers: ['version', 'two'] });
  const only = table(route({ match: by }));
  expect(matchRoute(only, whole)).toBeDefined();
  for (const less of [{ method: 'GET' }, { path: '/v2x' }, { query: '' }, { headers: [] }])
    expect(matchRoute(only, { ...whole, ...less })).toBeUndefined();
});

test('the first route that fits counts', () => {
  const routes = ['/v2', '=/v2/a', '/'].map((path) =>
    route({ name: path, match: match({ path: pathOf(path) }) }),
  );
  expect(matchRoute(table(...routes), request({ path: '/v2/a' }))?.name).toBe('/v2');
  expect(matchRoute(table(...routes), request({ path: '/v3' }))?.name).toBe('/');
});

test('a large table decides as one that is looked through in order', () => {
  const segment = fc.constantFrom('a', 'b', 'c', 'aa');
  const path = fc.array(segment, { maxLength: 4 }).map((segments) => `/${segments.join('/')}`);
  const pattern = fc.tuple(fc.constantFrom('', '=', '~'), path).map(([kind, text]) => kind + text);
  const one = fc.tuple(pattern, fc.option(fc.constantFrom('GET', 'POST'), { nil: undefined }));
  fc.assert(
    fc.property(
      fc.array(one, { minLength: 9, maxLength: 40 }),
      fc.array(fc.tuple(path, fc.constantFrom('', '/')), { minLength: 5, maxLength: 20 }),
      (shapes, requests) => {
        const routes = shapes.map(([text, method], place) =>
          route({
            name: String(place),
            match: match({ path: pathOf(text), ...(method === undefined ? {} : { method }) }),
          }),
        );
        const whole = table(...routes);
        for (const [text, end] of requests) {
          const asked = request({ path: text === '/' ? text : text + end });
          const inOrder = routes.find((each) => matchRoute(table(each), asked) !== undefined);
          expect(matchRoute(whole, asked)?.name).toBe(inOrder?.name);
        }
      },
    ),
  );
});
