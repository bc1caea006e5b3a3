import { type Case, type Difference, type Expectation, get, grpc, request } from '../case.ts';
import { stripped } from './own-headers.ts';

/** @param mark name of the fault that is injected; null: none */
const fault = (
  name: string,
  path: string,
  mark: string | null,
  expect: Expectation,
  more: Partial<Case> = {},
): Case => ({
  name,
  to: 'faults',
  send: get(path),
  expect,
  differs: {
    because: 'ours says which fault it was',
    aspects: [],
    envoy: { headers: { 'x-tulle-fault': null } },
    ours: { headers: { 'x-tulle-fault': mark } },
  },
  ...more,
});

/** Faults that are in our metadata, as Envoy's filter cannot say them: it injects nothing. */
function beyond(ours: Expectation, envoysFilter: string): Difference {
  return {
    because: `Envoy's fault filter ${envoysFilter}`,
    aspects: ['status', 'headers', 'body', 'upstream', 'attempts', 'seen request'],
    envoy: { status: 200, attempts: 1 },
    ours,
  };
}

const CHAOS = { 'x-chaos': 'please' };

export const FAULTS: readonly Case[] = [
  fault('abort', '/abort', 'abort', { status: 503, upstream: null, attempts: 0 }),
  fault(
    'abort a POST',
    '/abort',
    'abort',
    { status: 503, attempts: 0 },
    {
      send: request('POST', '/abort', { body: 'x' }),
    },
  ),
  fault(
    'abort over HTTP/2',
    '/abort',
    'abort',
    { status: 503, attempts: 0 },
    {
      send: request('GET', '/abort', { protocol: 'http2' }),
    },
  ),
  fault('delay', '/delay', 'delay', { status: 200, upstream: 'a', attempts: 1, atLeastMs: 390 }),
  fault('delay, then abort', '/delay-abort', 'both', {
    status: 500,
    upstream: null,
    attempts: 0,
    atLeastMs: 290,
  }),
  fault('without the header', '/by-header', null, { status: 200, upstream: 'a' }),
  fault(
    'with the header',
    '/by-header',
    'by-header',
    { status: 599, upstream: null },
    {
      send: get('/by-header', CHAOS),
    },
  ),
  fault(
    'with another value of the header',
    '/by-header',
    null,
    { status: 200 },
    {
      send: get('/by-header', { 'x-chaos': 'no' }),
    },
  ),
  fault('by a caller of another namespace', '/by-caller', null, { status: 200, upstream: 'a' }),
  fault(
    'by a caller of the namespace that is named',
    '/by-caller',
    null,
    {},
    {
      from: 'shop',
      differs: beyond({ status: 503, upstream: null, attempts: 0 }, 'knows no callers'),
    },
  ),
  fault(
    'the first of two',
    '/two',
    null,
    {},
    {
      send: get('/two', { 'x-chaos': 'one' }),
      differs: beyond({ status: 501, upstream: null, attempts: 0 }, 'has one fault a route'),
    },
  ),
  fault(
    'the second of two',
    '/two',
    null,
    {},
    {
      send: get('/two', { 'x-chaos': 'two' }),
      differs: beyond({ status: 502, upstream: null, attempts: 0 }, 'has one fault a route'),
    },
  ),
  fault('none of two', '/two', null, { status: 200, upstream: 'a' }),
  fault(
    'of each try',
    '/upstream',
    null,
    {},
    {
      send: get('/upstream', CHAOS),
      differs: beyond({ status: 503, upstream: null, attempts: 0 }, 'comes before retries'),
    },
  ),
  fault('of a try, without the header', '/upstream', null, { status: 200, upstream: 'pair' }),
  fault(
    'a delay that varies',
    '/jitter',
    null,
    {},
    {
      differs: {
        ...beyond({ status: 200, upstream: 'a', attempts: 1, atLeastMs: 190, belowMs: 600 }, 'does not vary'),
        aspects: [],
      },
    },
  ),
  fault('a rate, small answer', '/rate', 'rate', { status: 200, upstream: 'a' }),
  fault(
    'a rate, 64 KiB',
    '/rate',
    'rate',
    { status: 200, upstream: 'a', atLeastMs: 700 },
    { script: 'bytes:65536' },
  ),
  fault(
    'abort a call of gRPC',
    '/abort',
    'abort',
    { status: 200, upstream: null, attempts: 0, headers: { 'grpc-status': '14' } },
    {
      send: grpc('/abort'),
    },
  ),
  fault(
    'abort a call of gRPC by HTTP/1',
    '/abort',
    'abort',
    { status: 200, upstream: null, headers: { 'grpc-status': '14' } },
    {
      send: request('POST', '/abort', { headers: { 'content-type': 'application/grpc' }, body: '' }),
    },
  ),
  fault('abort a HEAD', '/abort', 'abort', { status: 503, body: '' }, { send: request('HEAD', '/abort') }),
  fault(
    'headers of a client that would inject',
    '/by-header',
    null,
    { status: 200, upstream: 'a' },
    {
      send: get('/by-header', { 'x-envoy-fault-abort-request': '503' }),
      differs: stripped('x-envoy-fault-abort-request', '503'),
    },
  ),
];
