import { type Case, type Difference, type Expectation, get, request } from '../case.ts';
import { TRAILERS } from './own-headers.ts';

function answered(because: string, envoy: Expectation, ours: Expectation): Difference {
  return {
    because,
    aspects: ['status', 'headers', 'body', 'trailers', 'end', 'earlier', 'upstream'],
    envoy,
    ours,
  };
}

const answer = (name: string, script: string, expect: Expectation, more: Partial<Case> = {}): Case => ({
  name,
  to: 'a',
  send: get('/answer'),
  script,
  expect,
  ...more,
});

/** Nothing of a broken answer may pass for a good one. */
const BROKEN: Expectation = { upstream: null };

export const ANSWERS: readonly Case[] = [
  answer('garbage', 'raw:garbage', BROKEN),
  answer('bytes', 'raw:binary', BROKEN),
  answer('a status that is no number', 'raw:bad-status', BROKEN),
  answer('a header without colon', 'raw:no-colon', BROKEN),
  answer('two lengths', 'raw:two-lengths', BROKEN),
  answer('length and chunked', 'raw:length-and-chunked', {}),
  answer('a bad chunk', 'raw:bad-chunk', {}),
  answer('a bad length', 'raw:bad-length', BROKEN),
  answer('NUL in a value', 'raw:nul-in-value', BROKEN),
  {
    ...answer('a folded line', 'raw:folded', {}),
    differs: answered(
      'folded lines are refused (RFC 9112, 5.2)',
      { status: 200 },
      { status: 502, upstream: null },
    ),
  },
  answer('a body until the connection ends', 'raw:until-close', {
    status: 200,
    body: 'until the end',
    end: 'complete',
  }),
  answer('HTTP/1.0', 'raw:http10', { status: 200, body: 'until the end', end: 'complete' }),
  answer('a huge header', 'raw:huge-header', BROKEN),
  answer('two hundred headers', 'raw:many-headers', BROKEN),
  answer('half a head', 'raw:head-only-half', BROKEN),
  answer('more than was promised', 'raw:too-much', { status: 200, body: 'ok', end: 'complete' }),
  {
    ...answer('a 101 that nobody asked for', 'raw:unasked-101', {}),
    differs: answered(
      'a change of protocol that nobody asked for is no answer',
      { status: 101 },
      { status: 502, upstream: null, end: 'complete' },
    ),
  },
  {
    ...answer('a 204 with a body', 'raw:status-204-with-body', { status: 204, body: '' }),
    expect: {},
    differs: answered(
      'a 204 has no body, whatever is said of its length',
      { status: 502, upstream: null },
      { status: 204, body: '' },
    ),
  },
  {
    ...answer('headers of the connection', 'raw:hop-by-hop', {
      status: 200,
      body: 'ok',
      headers: { 'proxy-connection': null },
    }),
    differs: answered(
      'what Connection names is for one hop (RFC 9110, 7.6.1)',
      { headers: { 'x-hop': '1' } },
      { headers: { 'x-hop': null } },
    ),
  },
  answer('half of the body', 'half', { status: 200, end: 'incomplete', body: 'ten bytes.' }),
  answer('half of the body, then a reset', 'half-reset', {
    status: 200,
    end: 'incomplete',
    body: 'ten bytes.',
  }),
  answer('nothing', 'close', { status: 503, upstream: null }),
  answer('a reset', 'reset', { status: 503, upstream: null }),
  {
    ...answer('trailers', 'trailers', { status: 200, body: 'with trailers\n' }),
    differs: TRAILERS,
  },
  {
    ...answer('early hints', 'hints', { status: 200 }),
    differs: answered(
      'answers before the answer are passed on (RFC 9110, 15.2)',
      { earlier: [] },
      { earlier: [103] },
    ),
  },
  answer('204', '204', { status: 204, body: '' }),
  answer('304', '304', { status: 304, body: '' }),
  answer('a status of our own making', '599', { status: 599, upstream: 'a' }),
  answer('a HEAD', '200', { status: 200, body: '' }, { send: request('HEAD', '/answer') }),
  answer('a megabyte', 'bytes:1000000', { status: 200, end: 'complete' }),
  answer('a forged server and date', 'header:server=forged', { status: 200 }),
  answer('a location', 'header:location=/there', { status: 200, headers: { location: '/there' } }),
  answer('x-envoy-upstream-service-time', 'header:x-envoy-upstream-service-time=77', { status: 200 }),
  answer(
    'half of the body over HTTP/2',
    'half',
    { status: 200, end: 'incomplete' },
    { send: request('GET', '/answer', { protocol: 'http2' }) },
  ),
  answer(
    'trailers over HTTP/2',
    'trailers',
    { status: 200, trailers: { 'x-trailer': 'yes' } },
    { send: request('GET', '/answer', { protocol: 'http2' }) },
  ),
];
