import { type Case, type Difference, type Expectation, get, request } from '../case.ts';

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
    name: 'request whose origin is in capitals',
    to: 'cors',
    send: get('/one', { origin: 'https://WWW.example.com' }),
    expect: { status: 200, upstream: 'a' },
  },
  {
    name: 'request over HTTP/2',
    to: 'cors',
    send: request('GET', '/one', { protocol: 'http2', headers: { origin: ORIGIN } }),
    expect: { status: 200, upstream: 'a', headers: { 'access-control-allow-origin': ORIGIN } },
  },
  {
    name: 'request that fails',
    to: 'cors',
    send: get('/one', { origin: ORIGIN }),
    script: 'reset',
    expect: { status: 503, upstream: null, headers: { 'access-control-allow-origin': ORIGIN } },
  },
  {
    name: 'request that the application answers with headers of its own',
    to: 'cors',
    send: get('/one', { origin: ORIGIN }),
    script: 'header:access-control-allow-origin=https://app.example',
    expect: { status: 200, headers: { 'access-control-allow-origin': ORIGIN } },
  },
  {
    name: 'preflight over HTTP/2',
    to: 'cors',
    send: request('OPTIONS', '/one', {
      protocol: 'http2',
      headers: { origin: ORIGIN, 'access-control-request-method': 'GET' },
    }),
    expect: granted({}),
  },
  {
    name: 'preflight with a private network',
    to: 'cors',
    send: request('OPTIONS', '/one', {
      headers: {
        origin: ORIGIN,
        'access-control-request-method': 'GET',
        'access-control-request-private-network': 'true',
      },
    }),
    expect: granted({}),
  },
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
