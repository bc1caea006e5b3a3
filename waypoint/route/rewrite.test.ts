import { describe, expect, test } from 'vitest';
import { compilePattern } from '../config/pattern.ts';
import type { RedirectAction } from '../model.ts';
import { redirectLocation, rewritePath } from './rewrite.ts';
import { match, pathOf } from './testing.ts';

describe('a rewritten path', () => {
  test.each([
    ['/foo', '/xyz', '/foo/bar', '/xyz/bar'],
    ['/foo', '/xyz', '/foo', '/xyz'],
    ['/foo', '/xyz', '/foo/', '/xyz/'],
    ['/', '/xyz', '/bar', '/xyz/bar'],
    ['=/foo', '/xyz', '/foo', '/xyz'],
    ['~/f.*', '/xyz', '/foo/bar', '/xyz'],
  ])('of the match %s with %s: %s is %s', (by, value, path, wanted) => {
    expect(rewritePath({ kind: 'prefix', value }, match({ path: pathOf(by) }), path)).toBe(wanted);
  });

  test.each([
    ['^/foo/?', '/', '/foo/bar', '/bar'],
    ['^/foo/?', '/', '/foo', '/'],
    ['^/v(\\d)/(.*)$', '/\\2/\\1', '/v2/a/b', '/a/b/2'],
    ['a', '[\\0]', '/aba', '/[a]b[a]'],
    ['^/foo', '', '/foobar', '/bar'],
  ])('by %s with %s: %s is %s', (pattern, substitution, path, wanted) => {
    const rewrite = { kind: 'regex', pattern: compilePattern(pattern), substitution } as const;
    expect(rewritePath(rewrite, match(), path)).toBe(wanted);
  });
});

describe('a Location', () => {
  const asked = { authority: 'ledger.pay:8080', path: '/a/b', query: '?x=1', port: 8080 };
  const redirect = (action: Partial<RedirectAction>): RedirectAction => ({
    kind: 'redirect',
    status: 302,
    ...action,
  });

  test.each<[string, Partial<RedirectAction>, Partial<typeof asked>, string]>([
    ['nothing is said', {}, {}, 'http://ledger.pay:8080/a/b?x=1'],
    ['the service’s port is 80', {}, { port: 80 }, 'http://ledger.pay/a/b?x=1'],
    ['Host has another port', {}, { authority: 'ledger.pay:9999' }, 'http://ledger.pay:8080/a/b?x=1'],
    ['a host is given', { host: 'e.org' }, {}, 'http://e.org/a/b?x=1'],
    ['a host and a port are given', { host: 'e.org', port: 8080 }, {}, 'http://e.org:8080/a/b?x=1'],
    ['a port is given', { port: 8083 }, {}, 'http://ledger.pay:8083/a/b?x=1'],
    ['port 80 is given', { port: 80 }, {}, 'http://ledger.pay/a/b?x=1'],
    ['port 443 is given', { port: 443 }, {}, 'http://ledger.pay:443/a/b?x=1'],
    ['https is given', { scheme: 'https' }, {}, 'https://ledger.pay/a/b?x=1'],
    ['https and 443 are given', { scheme: 'https', port: 443 }, {}, 'https://ledger.pay/a/b?x=1'],
    ['https and 80 are given', { scheme: 'https', port: 80 }, {}, 'https://ledger.pay:80/a/b?x=1'],
    ['http is given', { scheme: 'http' }, {}, 'http://ledger.pay/a/b?x=1'],
    ['Host is an IPv6 address', {}, { authority: '[fd00::1]:8080' }, 'http://[fd00::1]:8080/a/b?x=1'],
    ['there is no Host', {}, { authority: '' }, '/a/b?x=1'],
    ['a path is given', { path: { kind: 'full', value: '/n' } }, {}, 'http://ledger.pay:8080/n?x=1'],
    [
      'a path is given with a query',
      { path: { kind: 'full', value: '/n?z=2' } },
      {},
      'http://ledger.pay:8080/n?z=2',
    ],
    ['a prefix is given', { path: { kind: 'prefix', value: '/n' } }, {}, 'http://ledger.pay:8080/n/b?x=1'],
  ])('when %s', (_, action, request, wanted) => {
    const by = match({ path: pathOf('/a') });
    expect(redirectLocation(redirect(action), by, { ...asked, ...request })).toBe(wanted);
  });
});
