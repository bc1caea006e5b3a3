import { type Case, type Difference, type Expectation, raw } from '../case.ts';

const HOST = 'Host: paths.interop.svc.cluster.local';

const path = (name: string, target: string, expect: Expectation): Case => ({
  name,
  to: 'paths',
  send: raw([`GET ${target} HTTP/1.1`, HOST]),
  expect,
});

const lands = (upstream: string, seenPath: string): Expectation => ({ status: 200, upstream, seenPath });
const REFUSED: Expectation = { status: 400, upstream: null, attempts: 0 };
const NOWHERE: Expectation = { status: 404, upstream: null, attempts: 0 };

/** Ours refuses what can be read in two ways: the application may read it otherwise than the rules. */
function ambiguous(what: string, envoy: Expectation): Difference {
  return {
    because: `${what} can be read in two ways`,
    aspects: ['status', 'headers', 'body', 'upstream', 'attempts', 'seen request'],
    envoy,
    ours: REFUSED,
  };
}

/** Ours writes what is encoded in capitals, so that rules and application see one path. */
function capitals(envoy: Expectation, ours: Expectation): Difference {
  return {
    because: 'the digits of an encoded byte mean the same in small letters (RFC 3986, 6.2.2.1)',
    aspects: ['status', 'headers', 'body', 'upstream', 'attempts', 'seen request'],
    envoy,
    ours,
  };
}

export const PATHS: readonly Case[] = [
  path('as it is', '/public/x', lands('a', '/public/x')),
  path('one dot', '/./public/x', lands('a', '/public/x')),
  path('two dots', '/public/x/../y', lands('a', '/public/y')),
  path('two dots out of the prefix', '/public/../secret', lands('c', '/secret')),
  path('two dots into the prefix', '/x/../public/admin', lands('b', '/public/admin')),
  path('two dots at the end', '/public/admin/..', lands('a', '/public/')),
  path('a dot at the end', '/public/.', lands('a', '/public/')),
  path('two dots above the root', '/../../secret', lands('c', '/secret')),
  path('three dots are a name', '/public/.../x', lands('a', '/public/.../x')),
  path('dots in a name', '/public/..x', lands('a', '/public/..x')),
  path('two slashes', '/public//admin', lands('b', '/public/admin')),
  path('two slashes at the start', '//secret', lands('c', '/secret')),
  path('many slashes', '/public////x', lands('a', '/public/x')),
  path('two slashes at the end', '/public//', lands('a', '/public/')),
  path('slashes and dots', '/public//..//secret', {}),
  path('an encoded letter', '/%73ecret', lands('c', '/secret')),
  path('an encoded letter in the prefix', '/public/%61dmin', lands('b', '/public/admin')),
  path('an encoded dot', '/public/%2e%2e/secret', lands('c', '/secret')),
  path('an encoded dot, in capitals', '/public/%2E./secret', lands('c', '/secret')),
  path('an encoded slash', '/public%2fadmin', REFUSED),
  path('an encoded slash, in capitals', '/public%2Fadmin', REFUSED),
  path('an encoded backslash', '/public%5cadmin', REFUSED),
  {
    ...path('a backslash', '/public\\admin', {}),
    differs: ambiguous('a backslash', { status: 200, upstream: 'b', seenPath: '/public/admin' }),
  },
  {
    ...path('a backslash and dots', '/public\\..\\secret', {}),
    differs: ambiguous('a backslash', { status: 200, upstream: 'c', seenPath: '/secret' }),
  },
  path('encoded twice', '/public/%2561dmin', lands('a', '/public/%2561dmin')),
  {
    ...path('an encoded slash, twice', '/public%252fadmin', NOWHERE),
    expect: {},
    differs: ambiguous('what is encoded twice', NOWHERE),
  },
  path('an encoded per cent sign', '/public/%25', lands('a', '/public/%25')),
  {
    ...path('per cent and no digits', '/public/%zz', {}),
    differs: ambiguous('a per cent sign that begins no code', { status: 200, upstream: 'a' }),
  },
  {
    ...path('per cent at the end', '/public/%', {}),
    differs: ambiguous('a per cent sign that begins no code', { status: 200, upstream: 'a' }),
  },
  path('an encoded NUL', '/public/%00', {}),
  {
    ...path('an encoded line feed', '/public/%0a', {}),
    differs: ambiguous('an encoded control character', { status: 200, upstream: 'a' }),
  },
  path('an encoded blank', '/public/a%20b', lands('a', '/public/a%20b')),
  path('encoded UTF-8', '/caf%C3%A9', lands('c', '/caf%C3%A9')),
  {
    ...path('encoded UTF-8, in small letters', '/caf%c3%a9', {}),
    differs: capitals(NOWHERE, lands('c', '/caf%C3%A9')),
  },
  {
    ...path('overlong UTF-8 of a slash', '/public%c0%afadmin', {}),
    differs: ambiguous('overlong UTF-8', NOWHERE),
  },
  {
    ...path('overlong UTF-8 of dots', '/public/%c0%ae%c0%ae/secret', {}),
    differs: ambiguous('overlong UTF-8', { status: 200, upstream: 'a' }),
  },
  {
    ...path('a parameter after dots', '/public/..;/secret', {}),
    differs: ambiguous('a parameter after dots', { status: 200, upstream: 'c' }),
  },
  path('a parameter', '/public/x;v=1', lands('a', '/public/x;v=1')),
  path('a parameter at the prefix', '/public;v=1', NOWHERE),
  path('a parameter in the middle', '/public;v=1/admin', NOWHERE),
  path('a fragment', '/public#/admin', {}),
  path('an encoded fragment', '/public/%23', lands('a', '/public/%23')),
  path('a tilde that is encoded', '/public/%7Euser', {}),
  path('signs that need no code', "/public/!$&'()*+,;=:@", {}),
  {
    ...path('an encoded question mark', '/public/x%3fy', lands('a', '/public/x%3fy')),
    expect: {},
    differs: capitals(lands('a', '/public/x%3fy'), lands('a', '/public/x%3Fy')),
  },
  path('dots in the query', '/public?x=../..//%2f', lands('a', '/public?x=../..//%2f')),
  path('bytes above ASCII', '/public/\xe9', {}),
  path('an absolute form', 'http://paths.interop.svc.cluster.local/public/x', lands('a', '/public/x')),
  path('an absolute form with another host', 'http://other.example/public/x', lands('a', '/public/x')),
  path('an absolute form without path', 'http://paths.interop.svc.cluster.local', NOWHERE),
  path(
    'an absolute form with dots',
    'http://paths.interop.svc.cluster.local/x/../secret',
    lands('c', '/secret'),
  ),
  path('no slash at the start', 'public/x', REFUSED),
  path('a star for GET', '*', {}),
  path('8,000 letters', `/public/${'x'.repeat(8000)}`, { status: 200, upstream: 'a' }),
  path('70,000 letters', `/public/${'x'.repeat(70_000)}`, { upstream: null, attempts: 0 }),
  {
    name: 'a star for OPTIONS',
    to: 'paths',
    send: raw(['OPTIONS * HTTP/1.1', HOST]),
    expect: { upstream: null },
  },
];
