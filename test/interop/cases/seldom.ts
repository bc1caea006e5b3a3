import { type Case, type Expectation, type Field, get, raw, request } from '../case.ts';

const ORIGIN = 'https://www.example.com';

const seldom = (name: string, send: Case['send'], expect: Expectation, more: Partial<Case> = {}): Case => ({
  name,
  to: 'seldom',
  send,
  expect,
  ...more,
});

const stream = (path: string, fields: readonly Field[] = []): Case['send'] => ({
  fields: [
    [':method', 'GET'],
    [':scheme', 'http'],
    [':authority', 'shop.example'],
    [':path', path],
    ...fields,
  ],
});

const CUT: Expectation = { status: 200, body: 'ten bytes.', end: 'incomplete' };
/** What requests at random have found, each as small as can be. */
export const SELDOM: readonly Case[] = [
  seldom('a match of Host', request('GET', '/host', { host: 'tenant.example' }), { upstream: 'a' }),
  seldom('a match of Host that does not fit', get('/host'), { status: 404 }),
  seldom('a match of Host with its port', request('GET', '/host', { host: 'x.example:80' }), {
    upstream: 'b',
  }),
  seldom(
    'a match of Host over HTTP/2',
    request('GET', '/host', { protocol: 'http2', host: 'tenant.example' }),
    { upstream: 'a' },
  ),
  seldom('values that are no ASCII are set in UTF-8', get('/utf8'), {
    headers: { 'x-name': 'Zo\xc3\xab' },
    seenHeaders: { 'x-name': 'Zo\xc3\xab' },
  }),
  seldom('values that are no ASCII are matched in UTF-8', get('/utf8', { 'x-match': 'Zo\xc3\xab' }), {
    upstream: 'b',
  }),
  seldom('a dot is a byte, not a character', get('/utf8', { 'x-match': 'Ren\xc3\xa9' }), { upstream: 'c' }),
  seldom(
    'an answer with bytes above ASCII, whose body comes late',
    get('/h2'),
    { headers: { 'x-name': 'Zo\xc3\xab' } },
    { script: 'header:x-name=Zo\xc3\xab+stall', patienceMs: 1000 },
  ),
  seldom('a type that a route sets, of a text of the proxy', get('/type-of-text'), {
    status: 503,
    headers: { 'content-type': 'text/html' },
  }),
  seldom('a type that a route sets, of no body', get('/type-of-nothing'), {
    status: 302,
    headers: { 'content-type': null },
  }),
  seldom('headers of a route for a backend that is none', get('/missing', { origin: ORIGIN }), {
    status: 500,
    headers: { 'x-local': '1', 'access-control-allow-origin': ORIGIN },
  }),
  seldom(
    'two origins',
    get('/missing', [
      ['origin', ORIGIN],
      ['origin', ORIGIN],
    ]),
    {
      headers: { 'access-control-allow-origin': null },
    },
  ),
  seldom(
    'a preflight that wants no headers',
    request('OPTIONS', '/any-headers', {
      headers: { origin: ORIGIN, 'access-control-request-method': 'GET' },
    }),
    { status: 200, upstream: null, headers: { 'access-control-allow-headers': '' } },
  ),
  seldom(
    'a field twice that should be there once, over HTTP/2',
    stream('/twice'),
    { status: 200 },
    { script: 'header:etag=app' },
  ),
  seldom(
    'a field twice that should be there once, to HTTP/2',
    get('/h2', [
      ['user-agent', 'one'],
      ['user-agent', 'two'],
    ]),
    { status: 200 },
  ),
  seldom(
    'a stream that is reset for a protocol error',
    get('/h2'),
    { status: 502 },
    { script: 'raw:garbage' },
  ),
  seldom('half an answer over HTTP/2', stream('/h2'), CUT, { script: 'half-reset' }),
  seldom('half an answer of HTTP/1 over HTTP/2', stream('/utf8'), CUT, { script: 'half' }),
  seldom(
    'gRPC with a parameter is none',
    request('POST', '/nowhere', { headers: { 'content-type': 'application/grpc;x=y' } }),
    {
      status: 404,
    },
  ),
  seldom(
    'a request whose body does not come',
    raw(['POST /timeout HTTP/1.1', 'Host: x', 'Content-Length: 9'], 'half'),
    {},
    {
      patienceMs: 1500,
      differs: {
        because:
          'the time of a request counts from its start, so that it covers all of it, as the Gateway API wants',
        aspects: ['status', 'headers', 'body', 'end'],
        envoy: { status: 0 },
        ours: { status: 504 },
      },
    },
  ),
  seldom(
    'a code after early hints',
    get('/retry'),
    {},
    {
      script: 'hints+503,200',
      differs: {
        because: 'what comes before an answer is none: a code after it is tried again',
        aspects: ['status', 'body', 'earlier', 'attempts', 'seen request'],
        envoy: { status: 503, attempts: 1 },
        ours: { status: 200, attempts: 2, earlier: [103] },
      },
    },
  ),
  seldom(
    'a mirror beside a backend without endpoints',
    get('/mirror'),
    { status: 503, mirrors: ['mirror-1'] },
    {
      differs: {
        because: 'a mirror gets its copy whatever becomes of the request',
        aspects: ['mirrors', 'mirrored requests'],
        envoy: { mirrors: [] },
        ours: { mirrors: ['mirror-1'] },
      },
    },
  ),
  seldom(
    'a header in two lines that an expression takes together',
    get('/utf8', [
      ['x-match', 'Re'],
      ['x-match', 'n'],
    ]),
    {
      upstream: 'a',
    },
  ),
  seldom(
    'a redirect to port 80 from another',
    get('/port-80'),
    { status: 302 },
    {
      to: 'seldom:8080',
      differs: {
        because: 'the Gateway API wants :80 of http left out',
        aspects: ['headers'],
        envoy: { headers: { location: 'http://seldom.interop.svc.cluster.local:80/port-80' } },
        ours: { headers: { location: 'http://seldom.interop.svc.cluster.local/port-80' } },
      },
    },
  ),
  seldom(
    'a Referer that names no host',
    get('/h2', { referer: 'about:blank' }),
    { status: 200 },
    {
      differs: {
        because: 'a Referer may name what has no address of its own (RFC 9110, 10.1.3)',
        aspects: ['seen request'],
        envoy: { seenHeaders: { referer: null } },
        ours: { seenHeaders: { referer: 'about:blank' } },
      },
    },
  ),
];
