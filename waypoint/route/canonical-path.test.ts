import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { canonicalPath } from './canonical-path.ts';

describe('a path', () => {
  test.each([
    ['/', '/'],
    ['/a/b', '/a/b'],
    ['/a%41%7e%2D', '/aA~-'],
    ['/a%3a', '/a%3A'],
    ['/a/./b', '/a/b'],
    ['/a/../b', '/b'],
    ['/../../x', '/x'],
    ['/a/%2e%2E/b', '/b'],
    ['/a/.', '/a/'],
    ['/a/b/..', '/a/'],
    ['/..', '/'],
    ['/a/.../b', '/a/.../b'],
    ['/.a', '/.a'],
    ['/a%2E%2E/b', '/a../b'],
    ['//', '/'],
    ['/a//b/', '/a/b/'],
    ['/a//../b', '/a/b'],
    ['//a/..//b', '/b'],
    ['/a"<>{}|^`[]', '/a%22%3C%3E%7B%7D%7C%5E%60[]'],
    ['/caf%c3%a9', '/caf%C3%A9'],
    ['/a;b=1/c;', '/a;b=1/c;'],
    ['/a%20b', '/a%20b'],
    ['/100%25', '/100%25'],
    ['/%2541', '/%2541'],
    ['*', '*'],
  ])('%s is %s', (target, path) => {
    expect(canonicalPath(target)).toEqual({ kind: 'ok', path, query: '' });
  });

  test.each([
    ['/a?', '?'],
    ['/a?x=/../%2f//\\"', '?x=/../%2f//\\"'],
  ])('%s keeps its query', (target, query) => {
    expect(canonicalPath(target)).toEqual({ kind: 'ok', path: '/a', query });
  });

  test.each([
    ['a%2Fb', '/a%2Fb'],
    ['an escaped backslash', '/a%5cb'],
    ['a backslash', '/a\\b'],
    ['a NUL', '/a%00'],
    ['a control character', '/a%0A'],
    ['DEL', '/a%7F'],
    ['a raw control character', '/a\u0001'],
    ['a space', '/a b'],
    ['a raw byte that is no ASCII', '/\xc3\xa9'],
    ['one in its query', '/a?\xe9'],
    ['a fragment', '/a#b'],
    ['a fragment after its query', '/a?b#c'],
    ['an overlong slash', '/a%C0%AFb'],
    ['a lone byte of UTF-8', '/a%FF'],
    ['a surrogate', '/a%ED%A0%80'],
    ['half an escape', '/a%4'],
    ['an escape of other letters', '/a%zz'],
    ['a slash escaped twice', '/a%252fb'],
    ['a slash escaped twice in pieces', '/a%25%32%66b'],
    ['a dot escaped twice', '/a/%252e%252e/b'],
    ['a dot escaped three times', '/a/%25252e/b'],
    ['a NUL escaped twice', '/a%2500'],
    ['an overlong slash escaped twice', '/a%25C0%25AFb'],
    ['parameters on a dot segment', '/a/..;/b'],
    ['parameters with a name on a dot segment', '/a/..;x=1/b'],
    ['parameters, escaped, on a dot segment', '/a/%2E%2E%3B/b'],
    ['parameters on an empty segment', '/;x/a'],
    ['no slash at its start', 'a/b'],
    ['nothing', ''],
  ])('with %s is ambiguous', (_, target) => {
    expect(canonicalPath(target)).toMatchObject({ kind: 'ambiguous' });
  });

  const piece = fc.constantFrom(
    ...[
      '/',
      '//',
      '.',
      '..',
      '%2e',
      '%2E',
      ';',
      'a',
      'B',
      '%41',
      '%25',
      '25',
      '2f',
      '%2f',
      '%3B',
      '%c3%a9',
      '%20',
    ],
    ...['"', '|', '~', '%7e', 'x=1', '?', '&', '%', '\\'],
  );
  const target = fc.array(piece, { maxLength: 14 }).map((pieces) => `/${pieces.join('')}`);

  test('is its own canonical form', () => {
    fc.assert(
      fc.property(target, (text) => {
        const once = canonicalPath(text);
        if (once.kind === 'ok') expect(canonicalPath(once.path + once.query)).toEqual(once);
      }),
      { numRuns: 2000 },
    );
  });

  test('that is canonical has neither dots nor empty segments to resolve, however often it is decoded', () => {
    fc.assert(
      fc.property(target, (text) => {
        const once = canonicalPath(text);
        if (once.kind !== 'ok') return;
        let { path } = once;
        for (let round = 0; round < 3; round += 1) {
          expect(path.split('/').slice(1, -1)).not.toContain('');
          expect(path.split('/')).not.toContain('..');
          expect(path.split('/').map((segment) => segment.split(';')[0])).not.toContain('..');
          path = path.replaceAll(/%[0-9A-F]{2}/g, (written) =>
            String.fromCharCode(Number.parseInt(written.slice(1), 16)),
          );
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('of many escaped percent signs takes no time', () => {
    const started = performance.now();
    canonicalPath(`/%${'25'.repeat(30_000)}`);
    canonicalPath(`/${'%25'.repeat(20_000)}`);
    expect(performance.now() - started).toBeLessThan(200);
  });
});
