import { type Case, type Difference, type Expectation, get, raw } from '../case.ts';
import { stripped } from './own-headers.ts';

const REFUSED: Expectation = { status: 400, upstream: null, attempts: 0 };

/** Ours refuses what Envoy's parser forgives. */
function strict(because: string, status = 400): Difference {
  return {
    because,
    aspects: ['status', 'headers', 'body', 'upstream', 'attempts', 'end', 'seen request'],
    envoy: { status: 200, upstream: 'a' },
    ours: { status, upstream: null },
  };
}

/** Both refuse, for another reason. */
function otherStatus(because: string, envoy: number, ours: number): Difference {
  return {
    because,
    aspects: ['status', 'headers', 'body'],
    envoy: { status: envoy, upstream: null, attempts: 0 },
    ours: { status: ours, upstream: null, attempts: 0 },
  };
}

const CHUNKED_ONCE = otherStatus(
  'a coding that is not chunked once and last is malformed (RFC 9112, 6.1)',
  501,
  400,
);

const message = (
  name: string,
  lines: readonly string[],
  expect: Expectation,
  body = '',
  more = {},
): Case => ({
  name,
  to: 'a',
  send: raw(lines, body, more),
  expect,
});

const A = 'Host: a.interop.svc.cluster.local';
const GET = 'GET / HTTP/1.1';
const POST = 'POST / HTTP/1.1';

export const MESSAGES: readonly Case[] = [
  message('as it should be', [GET, A], { status: 200, upstream: 'a' }),
  message(
    'length and chunked',
    [POST, A, 'Content-Length: 5', 'Transfer-Encoding: chunked'],
    REFUSED,
    '0\r\n\r\n',
  ),
  message('two lengths that differ', [POST, A, 'Content-Length: 3', 'Content-Length: 4'], REFUSED, 'abc'),
  message('two lengths that are equal', [POST, A, 'Content-Length: 3', 'Content-Length: 3'], REFUSED, 'abc'),
  message('a list of lengths', [POST, A, 'Content-Length: 3, 3'], REFUSED, 'abc'),
  message('a length below zero', [POST, A, 'Content-Length: -1'], REFUSED),
  message('a length with a sign', [POST, A, 'Content-Length: +3'], REFUSED, 'abc'),
  message('a length that is no number', [POST, A, 'Content-Length: abc'], REFUSED),
  message('a length in hex', [POST, A, 'Content-Length: 0x3'], REFUSED, 'abc'),
  message('an empty length', [POST, A, 'Content-Length:'], REFUSED),
  message('a length beyond all numbers', [POST, A, 'Content-Length: 99999999999999999999'], REFUSED),
  message('an unknown coding', [POST, A, 'Transfer-Encoding: gzip'], {}, 'abc'),
  {
    ...message('chunked twice', [POST, A, 'Transfer-Encoding: chunked, chunked'], {}, '0\r\n\r\n'),
    differs: CHUNKED_ONCE,
  },
  {
    ...message('chunked, but not last', [POST, A, 'Transfer-Encoding: chunked, identity'], {}, '0\r\n\r\n'),
    differs: CHUNKED_ONCE,
  },
  {
    ...message(
      'chunked in two lines',
      [POST, A, 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'],
      {},
      '0\r\n\r\n',
    ),
    differs: CHUNKED_ONCE,
  },
  message('chunked with a tab', [POST, A, 'Transfer-Encoding:\tchunked'], {}, '0\r\n\r\n'),
  message(
    'chunked with a blank before the colon',
    [POST, A, 'Transfer-Encoding : chunked'],
    REFUSED,
    '0\r\n\r\n',
  ),
  {
    ...message(
      'a chunk without digits',
      [POST, A, 'Transfer-Encoding: chunked'],
      { upstream: null },
      'x\r\nabc\r\n0\r\n\r\n',
    ),
    chance: ['attempts', 'seen request'],
  },
  {
    ...message(
      'a chunk that is longer than it says',
      [POST, A, 'Transfer-Encoding: chunked'],
      { upstream: null },
      '2\r\nabc\r\n0\r\n\r\n',
    ),
    expect: {},
    differs: strict('a chunk ends with CR LF (RFC 9112, 7.1)'),
  },
  message(
    'a chunk with an extension',
    [POST, A, 'Transfer-Encoding: chunked'],
    { status: 200, seenBody: 'abc' },
    '3;x=y\r\nabc\r\n0\r\n\r\n',
  ),
  message(
    'trailers',
    [POST, A, 'Transfer-Encoding: chunked', 'Trailer: x-t'],
    { status: 200, seenBody: 'abc' },
    '3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n',
  ),
  message('a body with GET', [GET, A, 'Content-Length: 3'], { status: 200, seenBody: 'abc' }, 'abc'),
  message('no Host', [GET], REFUSED),
  {
    ...message('two Hosts', [GET, A, 'Host: other.example'], REFUSED),
    expect: {},
    differs: strict('a request with two Hosts is refused (RFC 9112, 3.2)'),
  },
  {
    ...message('an empty Host', [GET, 'Host:'], {}),
    differs: strict('an http URI has a host (RFC 9110, 4.2.1)'),
  },
  message('a Host with a blank', [GET, 'Host: a b'], REFUSED),
  message('a Host with a slash', [GET, 'Host: a/b'], REFUSED),
  {
    ...message('a Host with a user', [GET, 'Host: user@a.example'], {}),
    differs: strict('user information in a Host is not one (RFC 9110, 7.2)'),
  },
  message('a Host with a port', [GET, 'Host: a.example:8080'], {
    status: 200,
    seenHeaders: { host: 'a.example:8080' },
  }),
  message('a Host in capitals', [GET, 'Host: A.EXAMPLE'], { status: 200 }),
  message('a Host that is an IPv6 address', [GET, 'Host: [fd00::1]:80'], { status: 200 }),
  message('a header without colon', [GET, A, 'no colon'], REFUSED),
  message('a header without name', [GET, A, ': value'], REFUSED),
  message('a blank in a name', [GET, A, 'x y: 1'], REFUSED),
  message('a blank before the colon', [GET, A, 'x-y : 1'], REFUSED),
  {
    ...message('a line that is folded', [GET, A, 'x-folded: a', ' b'], REFUSED),
    expect: {},
    differs: strict('folded lines are refused (RFC 9112, 5.2)'),
  },
  message('a line that is folded at once', [GET, ' x: 1', A], REFUSED),
  message('NUL in a value', [GET, A, 'x-nul: a\0b'], REFUSED),
  {
    ...message('a bare CR in a value', [GET, A, 'x-cr: a\rb'], REFUSED),
    expect: {},
    differs: strict('a bare CR is invalid (RFC 9112, 2.2)'),
  },
  {
    ...message('a bare LF at the end of a line', [`${GET}\r\n${A}\nx-lf: 1`], {}),
    differs: strict('lines end with CR LF: what ends them otherwise is read in two ways'),
  },
  message('a control character in a value', [GET, A, 'x-bell: a\x07b'], {}),
  message('bytes above ASCII in a value', [GET, A, 'x-high: \xe9'], { status: 200 }),
  message('an underscore in a name', [GET, A, 'x_under: 1'], { status: 200 }),
  message('an empty value', [GET, A, 'x-empty:'], { status: 200, seenHeaders: { 'x-empty': '' } }),
  message('a header of 20,000 bytes', [GET, A, `x-long: ${'l'.repeat(20_000)}`], {}),
  message('a header of 70,000 bytes', [GET, A, `x-long: ${'l'.repeat(70_000)}`], {
    upstream: null,
    attempts: 0,
  }),
  message('ninety headers', [GET, A, ...Array.from({ length: 90 }, (_, i) => `x-${i}: 1`)], { status: 200 }),
  message('two hundred headers', [GET, A, ...Array.from({ length: 200 }, (_, i) => `x-${i}: 1`)], {
    upstream: null,
    attempts: 0,
  }),
  message('HTTP/1.0', ['GET / HTTP/1.0', A], {}),
  {
    ...message('HTTP/1.2', ['GET / HTTP/1.2', A], {}),
    differs: otherStatus('a version that does not exist', 426, 400),
  },
  message('HTTP/2.0 in words', ['GET / HTTP/2.0', A], { upstream: null }),
  message('HTTP/0.9', ['GET /'], { upstream: null }),
  message('no version', ['GET /x', A], { upstream: null }),
  message('a version in small letters', ['GET / http/1.1', A], REFUSED),
  message('two blanks', ['GET  / HTTP/1.1', A], {}),
  {
    ...message('a tab', ['GET\t/ HTTP/1.1', A], { upstream: null }),
    expect: {},
    differs: strict('one blank stands between the parts of a request line (RFC 9112, 3)'),
  },
  message('a blank in the path', ['GET /a b HTTP/1.1', A], REFUSED),
  message('an empty line first', ['', GET, A], { status: 200 }),
  message('a method that is unknown', ['BREW / HTTP/1.1', A], {}),
  message('a method in small letters', ['get / HTTP/1.1', A], {}),
  message('a method with a sign', ['G(T / HTTP/1.1', A], REFUSED),
  message('TRACE', ['TRACE / HTTP/1.1', A], {}),
  {
    ...message('CONNECT', ['CONNECT other.example:443 HTTP/1.1', 'Host: other.example:443'], {
      upstream: null,
      attempts: 0,
    }),
    differs: otherStatus('CONNECT is refused, whatever the routes are', 404, 403),
  },
  message('not HTTP at all', ['\x16\x03\x01\x00\x05hello'], { upstream: null, attempts: 0 }),
  message('two requests at once', [GET, A], { status: 200, earlier: [200] }, `${GET}\r\n${A}\r\n\r\n`, {
    answers: 2,
  }),
  message(
    'a second request inside the length of the first',
    [POST, A, `Content-Length: ${GET.length}`],
    { status: 200, seenBody: GET },
    GET,
  ),
  message(
    'Expect: 100-continue',
    [POST, A, 'Expect: 100-continue', 'Content-Length: 3'],
    { status: 200, seenBody: 'abc' },
    'abc',
  ),
  message('Expect: something else', [POST, A, 'Expect: miracles', 'Content-Length: 3'], {}, 'abc'),
  message('headers of the connection', [GET, A, 'Connection: x-hop, close', 'X-Hop: 1', 'Keep-Alive: 5'], {
    status: 200,
    seenHeaders: { 'keep-alive': null, 'x-hop': null },
  }),
  message('headers of the connection', [GET, A, 'Connection: x-hop, close', 'X-Hop: 1', 'Keep-Alive: 5'], {
    status: 200,
    seenHeaders: { 'keep-alive': null, 'x-hop': null },
  }),
  message('TE: trailers', [GET, A, 'TE: trailers'], { status: 200 }),
  message('TE: gzip', [GET, A, 'TE: gzip'], { status: 200 }),
  message('Proxy-Connection', [GET, A, 'Proxy-Connection: keep-alive'], {
    status: 200,
    seenHeaders: { 'proxy-connection': null },
  }),
  message('Upgrade to what is not known', [GET, A, 'Connection: Upgrade', 'Upgrade: teleport'], {}),
  message(
    'Upgrade: h2c',
    [GET, A, 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAAP__'],
    {},
  ),
];

const forged = (name: string, value: string, differs?: Difference): Case => ({
  name,
  to: 'a',
  send: get('/forged', [[name, value]]),
  expect: { status: 200, upstream: 'a' },
  ...(differs === undefined ? {} : { differs }),
});

const own = (name: string, value: string): Case => forged(name, value, stripped(name, value));

export const FORGED: readonly Case[] = [
  own('x-envoy-original-path', '/other'),
  own('x-envoy-decorator-operation', 'x'),
  own('x-envoy-external-address', '1.2.3.4'),
  forged('x-envoy-internal', 'true'),
  forged('x-envoy-attempt-count', '7'),
  forged('x-envoy-upstream-rq-timeout-ms', '1'),
  forged('x-envoy-expected-rq-timeout-ms', '1'),
  forged('x-forwarded-for', '1.2.3.4'),
  forged('x-forwarded-proto', 'https'),
  forged('x-forwarded-host', 'other.example'),
  forged('forwarded', 'for=1.2.3.4'),
  { ...forged('x-request-id', 'mine'), expect: { status: 200, seenHeaders: { 'x-request-id': 'mine' } } },
  forged('x-forwarded-port', '1'),
  forged('x-real-ip', '1.2.3.4'),
  forged('x-envoy-retry-on', '5xx'),
  forged('x-envoy-max-retries', '9'),
  forged('x-envoy-upstream-alt-stat-name', 'x'),
  forged('x-envoy-force-trace', '1'),
  forged('x-envoy-hedge-on-per-try-timeout', 'true'),
  forged('x-envoy-ip-tags', 'x'),
  own('x-tulle-caller', 'spiffe://cluster.local/ns/shop/sa/other'),
  forged('baggage', 'k8s.namespace.name=shop'),
  forged('authorization', 'Bearer x'),
  forged('cookie', 'a=1'),
  forged('via', '1.1 somebody'),
];
