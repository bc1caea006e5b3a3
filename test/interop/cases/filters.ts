import { type Case, type Difference, type Expectation, type Field, get, request } from '../case.ts';

const HOST = 'headers.interop.svc.cluster.local';

const headers = (name: string, path: string, fields: readonly Field[], expect: Expectation): Case => ({
  name,
  to: 'headers',
  send: get(path, fields),
  expect: { status: 200, upstream: 'a', ...expect },
});

export const HEADERS: readonly Case[] = [
  headers('set, absent', '/set', [], { seenHeaders: { 'x-set': 'new', 'x-other': 'other' } }),
  headers('set, present', '/set', [['X-Set', 'old']], { seenHeaders: { 'x-set': 'new' } }),
  headers(
    'set, present twice',
    '/set',
    [
      ['x-set', 'old'],
      ['x-set', 'older'],
    ],
    { seenHeaders: { 'x-set': 'new' } },
  ),
  headers('add, absent', '/add', [], { seenHeaders: { 'x-add': 'added' } }),
  headers('remove, absent', '/remove', [['x-stays', '1']], {
    seenHeaders: { 'x-stays': '1', 'x-gone': null },
  }),
  headers(
    'remove, present twice and in capitals',
    '/remove',
    [
      ['X-GONE', '1'],
      ['x-gone', '2'],
      ['x-also-gone', '3'],
    ],
    { seenHeaders: { 'x-gone': null, 'x-also-gone': null } },
  ),
  headers(
    'set, add and remove',
    '/all',
    [
      ['x-set', 'old'],
      ['x-gone', '1'],
    ],
    { seenHeaders: { 'x-set': 'new', 'x-add': 'added', 'x-gone': null } },
  ),
  headers('a rule without filters changes nothing', '/local', [], { status: 503, upstream: null }),
  headers('set on the answer', '/response/set', [], { headers: { 'x-from-app': 'route' } }),
  headers('add to the answer', '/response/add', [], { headers: { 'x-more': '1' } }),
  headers('remove from the answer', '/response/remove', [], {
    headers: { 'x-drop': null, 'x-from-app': null },
  }),
  headers('a cookie more on the answer', '/response/cookie', [], {
    headers: { 'set-cookie': 'app=1, app=2, route=3' },
  }),
  headers('request and answer', '/both', [], {
    seenHeaders: { 'x-set': 'new' },
    headers: { 'x-set-too': 'new' },
  }),
  headers('on a backend', '/backend', [['x-gone', '1']], {
    seenHeaders: { 'x-backend': 'a', 'x-gone': null },
    headers: { 'x-backend': 'a' },
  }),
  headers('on rule and backend', '/rule-and-backend', [['x-set', 'client']], {}),
  headers('on rule and backend, answer', '/response-rule-and-backend', [], {}),
  headers(
    'set what the client brings, remove what it brings',
    '/user-agent',
    [
      ['user-agent', 'client'],
      ['accept', '*/*'],
    ],
    { seenHeaders: { 'user-agent': 'mesh', accept: null } },
  ),
  headers('per cent signs are only per cent signs', '/percent', [], {
    seenHeaders: { 'x-percent': '100% %REQ(:path)% %%' },
    headers: { 'x-percent': '50% off %PROTOCOL%' },
  }),
  {
    name: 'add, present',
    to: 'headers',
    send: get('/add', { 'x-add': 'client' }),
    expect: { status: 200, seenHeaders: { 'x-add': 'client, added' } },
  },
  {
    name: 'over HTTP/2',
    to: 'headers',
    send: request('GET', '/all', { protocol: 'http2', headers: { 'x-set': 'old', 'x-gone': '1' } }),
    expect: { seenHeaders: { 'x-set': 'new', 'x-add': 'added', 'x-gone': null, host: HOST } },
  },
];

const redirect = (
  name: string,
  path: string,
  location: string,
  status = 302,
  host = 'shop.example',
): Case => ({
  name,
  to: 'redirect',
  send: request('GET', path, { host }),
  expect: { status, upstream: null, attempts: 0, headers: { location } },
});

export const REDIRECTS: readonly Case[] = [
  redirect('host', '/host/x?y=1', 'http://example.org/host/x?y=1'),
  redirect('host and 301', '/host-301', 'http://example.org/host-301', 301),
  redirect('host and 303', '/host-303', 'http://example.org/host-303', 303),
  redirect('host and 307', '/host-307', 'http://example.org/host-307', 307),
  redirect('host and 308', '/host-308', 'http://example.org/host-308', 308),
  redirect('port', '/port', 'http://shop.example:8083/port'),
  redirect('port 80 of http', '/port-80', 'http://shop.example/port-80'),
  redirect('scheme', '/scheme?a=b', 'https://shop.example/scheme?a=b'),
  redirect('scheme http', '/scheme-http', 'http://shop.example/scheme-http'),
  redirect('scheme and port', '/scheme-port', 'https://shop.example:8443/scheme-port'),
  redirect('scheme and its own port', '/scheme-443', 'https://shop.example/scheme-443'),
  redirect('scheme and the port of the other', '/scheme-80', 'https://shop.example:80/scheme-80'),
  redirect('scheme, host and 301', '/scheme-host', 'https://example.org/scheme-host', 301),
  redirect('the full path', '/full/x', 'http://shop.example/whole'),
  redirect('the full path keeps the query', '/full-query/x?a=b', 'http://example.org/whole?a=b'),
  redirect('a prefix', '/prefix/x', 'http://shop.example/new/x'),
  redirect('a prefix alone', '/prefix', 'http://shop.example/new'),
  redirect('a prefix with a slash', '/prefix/', 'http://shop.example/new/'),
  redirect('a prefix with a query', '/prefix/x?a=b', 'http://shop.example/new/x?a=b'),
  redirect('a prefix to the root', '/prefix-root/x', 'http://shop.example/x'),
  redirect('a prefix alone to the root', '/prefix-root', 'http://shop.example/'),
  redirect('a prefix to nothing', '/prefix-empty/x', 'http://shop.example/x'),
  redirect('a prefix alone to nothing', '/prefix-empty', 'http://shop.example/'),
  redirect('a prefix with slashes at both ends', '/prefix-slash/x', 'http://shop.example/new/x'),
  redirect('a prefix, a host and 301', '/prefix-host/x', 'http://example.org/new/x', 301),
  redirect('only a status', '/nothing', 'http://shop.example/nothing'),
  redirect(
    'the port of Host does not stay',
    '/scheme',
    'https://shop.example/scheme',
    302,
    'shop.example:80',
  ),
  redirect('another port of Host', '/host-301', 'http://example.org/host-301', 301, 'shop.example:8080'),
  redirect('with headers', '/with-headers', 'http://example.org/with-headers'),
  {
    name: 'a POST',
    to: 'redirect',
    send: request('POST', '/host-307', { body: 'abc', host: 'shop.example' }),
    expect: { status: 307, headers: { location: 'http://example.org/host-307' } },
  },
  {
    name: 'a path with dots',
    to: 'redirect',
    send: request('GET', '/x/../prefix/./y', { host: 'shop.example' }),
    expect: { status: 302, headers: { location: 'http://shop.example/new/y' } },
  },
];

const rewrite = (name: string, path: string, seenPath: string, more: Expectation = {}): Case => ({
  name,
  to: 'rewrite',
  send: request('GET', path, { host: 'shop.example', headers: { 'x-gone': '1' } }),
  expect: { status: 200, seenPath, ...more },
});

export const REWRITES: readonly Case[] = [
  rewrite('a prefix', '/prefix/one/two', '/one/two'),
  rewrite('a prefix alone', '/prefix/one', '/one'),
  rewrite('a prefix with a slash', '/prefix/one/', '/one/'),
  rewrite('a prefix with a query', '/prefix/one/two?a=/prefix/one', '/one/two?a=/prefix/one'),
  rewrite('a prefix alone with a query', '/prefix/one?a=b', '/one?a=b'),
  rewrite('a prefix that is twice there', '/prefix/one/prefix/one', '/one/prefix/one'),
  rewrite('stripped to the root', '/strip/three', '/three'),
  rewrite('stripped to the root, alone', '/strip', '/'),
  rewrite('stripped to the root, a slash', '/strip/', '/'),
  rewrite('stripped to the root, a query', '/strip?a=b', '/?a=b'),
  rewrite('stripped to the root, a slash and a query', '/strip/?a=b', '/?a=b'),
  rewrite('to nothing', '/empty/three', '/three'),
  rewrite('to nothing, alone', '/empty', '/'),
  rewrite('to nothing, a query', '/empty?a=b', '/?a=b'),
  rewrite('to one with a slash at its end', '/trailing/x', '/new/x'),
  rewrite('to one with a slash at its end, alone', '/trailing', '/new'),
  rewrite('from one with a slash at its end', '/match-trailing/x', '/new/x'),
  rewrite('from one with a slash at its end, without it', '/match-trailing', '/new'),
  rewrite('to a longer one', '/longer/x', '/much/longer/than/before/x'),
  rewrite('the full path', '/full/one/two', '/one'),
  rewrite('the full path keeps the query', '/full/one/two?a=b', '/one?a=b'),
  rewrite('the full path to the root', '/full-root/x', '/'),
  rewrite('signs of regular expressions mean nothing', '/full-regex-signs', '/a$1b'),
  rewrite('the host', '/host/x', '/host/x', { seenHeaders: { host: 'one.example.org' } }),
  rewrite('host and prefix', '/host-and-prefix/x', '/prefix/x', { seenHeaders: { host: 'one.example.org' } }),
  rewrite('prefix and headers', '/with-headers/x', '/prefix/x', {
    seenHeaders: { 'x-set': '1', 'x-add': '1', 'x-gone': null },
  }),
  rewrite('an exact path', '/exact', '/replaced'),
  rewrite('a path of a regular expression', '/regex/abc', '/replaced'),
  rewrite('the root', '/', '/base/', { upstream: 'c' }),
  rewrite('below the root', '/x/y', '/base/x/y', { upstream: 'c' }),
  rewrite('dots are resolved first', '/x/../prefix/one/y', '/one/y'),
];

const mirror = (name: string, path: string, mirrors: readonly string[], more: Partial<Case> = {}): Case => ({
  name,
  to: 'mirror',
  send: request('POST', path, { body: 'to be mirrored', host: 'shop.example' }),
  ...more,
  expect: { status: 200, upstream: 'a', attempts: 1, mirrors, ...more.expect },
});

export const MIRRORS: readonly Case[] = [
  mirror('one', '/one', ['mirror-1']),
  mirror('two', '/two', ['mirror-1', 'mirror-2']),
  mirror('none of a hundred', '/none', []),
  mirror('a hundred of a hundred', '/all', ['mirror-1']),
  mirror('a GET', '/one', ['mirror-1'], { send: get('/one') }),
  mirror('over HTTP/2', '/one', ['mirror-1'], {
    send: request('POST', '/one', { protocol: 'http2', body: 'mirrored' }),
  }),
  mirror('with a rewritten path', '/rewritten/x', ['mirror-1'], { expect: { seenPath: '/new/x' } }),
  mirror('to where nobody listens', '/dead', []),
  mirror('beside a backend where nobody listens', '/mirror-only-fails', ['mirror-1'], {
    expect: { status: 503, upstream: null, attempts: 0 },
  }),
];

const ORIGIN = 'https://www.example.com';
const NONE = { 'access-control-allow-origin': null, 'access-control-allow-credentials': null };

/** Envoy lists what would be allowed, though nothing is. */
const NOT_GRANTED: Difference = {
  because: 'the Gateway API wants no CORS headers for an origin that is not allowed',
  aspects: ['headers'],
  envoy: { status: 200 },
  ours: {
    status: 200,
    headers: { ...NONE, 'access-control-allow-methods': null, 'access-control-max-age': null },
  },
};

const refusedPreflight = (name: string, path: string, origin: string): Case => ({
  ...preflight(name, path, origin, path === '/wild-host' ? 'GET' : 'PUT', {
    upstream: null,
    attempts: 0,
    headers: NONE,
  }),
  differs: NOT_GRANTED,
});

const preflight = (
  name: string,
  path: string,
  origin: string,
  method: string,
  expect: Expectation,
): Case => ({
  name: `preflight, ${name}`,
  to: 'cors',
  send: request('OPTIONS', path, {
    headers: {
      origin,
      'access-control-request-method': method,
      'access-control-request-headers': 'x-header-1',
    },
  }),
  expect,
});

const actual = (name: string, path: string, origin: string, allowed: Expectation['headers']): Case => ({
  name: `request, ${name}`,
  to: 'cors',
  send: get(path, { origin }),
  expect: { status: 200, upstream: 'a', headers: { ...allowed } },
});

const granted = (more: Expectation['headers']): Expectation => ({
  status: 200,
  upstream: null,
  attempts: 0,
  headers: { 'access-control-allow-origin': ORIGIN, ...more },
});

export const CORS: readonly Case[] = [
  preflight(
    'an origin that is allowed',
    '/one',
    ORIGIN,
    'PUT',
    granted({ 'access-control-max-age': '3600' }),
  ),
  refusedPreflight('another origin', '/one', 'https://evil.example'),
  refusedPreflight('another scheme', '/one', 'http://www.example.com'),
  refusedPreflight('another port', '/one', 'https://www.example.com:8443'),
  refusedPreflight('an origin that goes on', '/one', 'https://www.example.com.evil.example'),
  preflight('a method that is not allowed', '/one', ORIGIN, 'DELETE', {}),
  preflight('a host below the wildcard', '/wild-host', ORIGIN, 'GET', granted({})),
  preflight('two levels below the wildcard', '/wild-host', 'https://a.b.example.com', 'GET', {}),
  refusedPreflight('the wildcard itself', '/wild-host', 'https://example.com'),
  preflight('any origin', '/any', ORIGIN, 'GET', { status: 200, upstream: null }),
  preflight(
    'credentials',
    '/credentials',
    ORIGIN,
    'POST',
    granted({ 'access-control-allow-credentials': 'true' }),
  ),
  preflight('any origin with credentials', '/any-credentials', ORIGIN, 'GET', {
    status: 200,
    upstream: null,
  }),
  preflight('the second of two', '/two', 'http://two.example:8080', 'GET', {
    headers: { 'access-control-allow-origin': 'http://two.example:8080' },
  }),
  actual('an origin that is allowed', '/one', ORIGIN, { 'access-control-allow-origin': ORIGIN }),
  actual('another origin', '/one', 'https://evil.example', NONE),
  actual('a host below the wildcard', '/wild-host', ORIGIN, { 'access-control-allow-origin': ORIGIN }),
  actual('any origin', '/any', ORIGIN, {}),
  actual('credentials', '/credentials', ORIGIN, {
    'access-control-allow-origin': ORIGIN,
    'access-control-allow-credentials': 'true',
  }),
  actual('any origin with credentials', '/any-credentials', ORIGIN, {}),
  actual('the origin null', '/one', 'null', NONE),
  {
    name: 'request without origin',
    to: 'cors',
    send: get('/one'),
    expect: { status: 200, upstream: 'a', headers: NONE },
  },
  {
    name: 'OPTIONS that is no preflight',
    to: 'cors',
    send: request('OPTIONS', '/one', { headers: { origin: ORIGIN } }),
    expect: { status: 200, upstream: 'a' },
  },
  {
    name: 'OPTIONS without origin',
    to: 'cors',
    send: request('OPTIONS', '/one', { headers: { 'access-control-request-method': 'PUT' } }),
    expect: { status: 200, upstream: 'a' },
  },
  {
    name: 'preflight without requested headers',
    to: 'cors',
    send: request('OPTIONS', '/one', { headers: { origin: ORIGIN, 'access-control-request-method': 'PUT' } }),
    expect: granted({}),
  },
];
