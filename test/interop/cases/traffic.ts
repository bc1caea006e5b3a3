import { type Case, type Difference, type Expectation, get, request } from '../case.ts';
import { stripped } from './own-headers.ts';

const reference = (name: string, path: string, expect: Expectation): Case => ({
  name,
  to: 'refs',
  send: get(path),
  expect: { upstream: null, attempts: 0, ...expect },
});

export const REFERENCES: readonly Case[] = [
  reference('a service that is not there', '/missing', { status: 500 }),
  reference('a kind that is not known', '/kind', { status: 500 }),
  reference('a port that the service has not', '/port', { status: 500 }),
  reference('another namespace without grant', '/hidden', { status: 500 }),
  reference('another namespace with grant', '/shown', { status: 200, upstream: 'shown', attempts: 1 }),
  reference('no backends', '/none', { status: 500 }),
  reference('an empty list of backends', '/empty-list', { status: 500 }),
  reference('a service without endpoints', '/empty', { status: 503 }),
  reference('no backends, but a filter that answers nothing', '/filter-only', { status: 500 }),
  reference('nothing matches', '/other', { status: 404 }),
  {
    name: 'a good route beside refused ones',
    to: 'refused',
    send: get('/good'),
    expect: { status: 200, upstream: 'a' },
  },
  {
    name: 'an unknown filter',
    to: 'refused',
    send: get('/unknown-filter'),
    expect: { status: 500, upstream: null },
  },
  {
    name: 'a filter that sets Host',
    to: 'refused',
    send: get('/host'),
    expect: { status: 500, upstream: null },
  },
  {
    name: 'a rule beside an unknown filter',
    to: 'refused',
    send: get('/beside'),
    expect: { status: 500, upstream: null },
  },
  {
    name: 'an extension that is not there',
    to: 'refused',
    send: get('/extension'),
    expect: { status: 500, upstream: null },
  },
  {
    name: 'nothing that is refused',
    to: 'refused',
    send: get('/x'),
    expect: { status: 404, upstream: null },
  },
  {
    name: 'a service without routes',
    to: 'b',
    send: get('/anything'),
    expect: { status: 200, upstream: 'b' },
  },
  {
    name: 'a service without routes, HTTP/2 inside',
    to: 'h2',
    send: get('/x'),
    expect: { status: 200, upstream: 'h2' },
  },
  {
    name: 'a service without routes whose protocol is not declared',
    to: 'undeclared',
    send: get('/x'),
    expect: { status: 200, upstream: 'undeclared' },
  },
  {
    name: 'routes of a service whose protocol is not declared',
    to: 'undeclared-routes',
    send: get('/x'),
    expect: { status: 200, upstream: 'a' },
  },
  {
    name: 'a caller of another namespace',
    to: 'consumer',
    send: get('/shop'),
    expect: { status: 200, upstream: 'a', headers: { 'x-route': 'producer' } },
  },
  {
    name: "a caller of the route's namespace",
    to: 'consumer',
    from: 'shop',
    send: get('/shop'),
    expect: { status: 200, upstream: 'shown', headers: { 'x-route': 'consumer' } },
  },
  {
    name: "a caller of the route's namespace, for whom nothing matches",
    to: 'consumer',
    from: 'shop',
    send: get('/other'),
    expect: { status: 404, upstream: null },
  },
];

const timeout = (
  name: string,
  path: string,
  script: string,
  expect: Expectation,
  more: Partial<Case> = {},
): Case => ({
  name,
  to: 'timeouts',
  send: get(path),
  script,
  expect,
  ...more,
});

const IN_TIME: Expectation = { status: 200 };

export const TIMEOUTS: readonly Case[] = [
  timeout('of the request, in time', '/request', 'slow:100', IN_TIME),
  timeout('of the request, too late', '/request', 'slow:1500', {
    status: 504,
    upstream: null,
    attempts: 1,
    atLeastMs: 480,
    belowMs: 1200,
  }),
  timeout('of the request, never an answer', '/request', 'hang', {
    status: 504,
    upstream: null,
    atLeastMs: 480,
  }),
  timeout('of the request, in the middle of the answer', '/request', 'stall', {
    status: 200,
    upstream: 'a',
    end: 'incomplete',
    atLeastMs: 480,
  }),
  timeout('of a try, in time', '/backend', 'slow:100', IN_TIME),
  timeout('of a try, too late', '/backend', 'slow:1500', {
    status: 504,
    upstream: null,
    attempts: 1,
    atLeastMs: 280,
    belowMs: 1200,
  }),
  timeout('of both, too late for the try', '/both', 'slow:1500', {
    status: 504,
    upstream: null,
    attempts: 1,
    atLeastMs: 280,
    belowMs: 1200,
  }),
  timeout('of both, in time', '/both', 'slow:100', IN_TIME),
  timeout('off', '/off', 'slow:1200', { ...IN_TIME, atLeastMs: 1150 }),
  timeout('of a try off, in time for the whole', '/backend-off', 'slow:300', IN_TIME),
  timeout('of a try off, too late for the whole', '/backend-off', 'slow:1500', {
    status: 504,
    atLeastMs: 580,
  }),
  timeout('none', '/never', 'slow:1500', { ...IN_TIME, atLeastMs: 1450 }),
  timeout('of a try, and the next is in time', '/retried', 'slow:2000,200', {
    status: 200,
    attempts: 2,
    hosts: 2,
    atLeastMs: 280,
  }),
  timeout('of a try, three times', '/retried', 'slow:2000', {
    status: 504,
    upstream: null,
    attempts: 3,
    atLeastMs: 850,
    belowMs: 1800,
  }),
  timeout('of the whole, in the midst of retries', '/short-of-retries', 'slow:300+503', {
    status: 504,
    upstream: null,
    attempts: 2,
    atLeastMs: 480,
    belowMs: 1200,
  }),
  timeout(
    'of a POST',
    '/request',
    'slow:1500',
    { status: 504, attempts: 1 },
    { send: request('POST', '/request', { body: 'abc' }) },
  ),
  timeout('to HTTP/2', '/h2', 'slow:1500', { status: 504, attempts: 1 }),
  timeout(
    'over HTTP/2',
    '/request',
    'slow:1500',
    { status: 504 },
    { send: request('GET', '/request', { protocol: 'http2' }) },
  ),
];

const retry = (
  name: string,
  path: string,
  script: string | undefined,
  expect: Expectation,
  more: Partial<Case> = {},
): Case => ({
  name,
  to: 'retry',
  send: get(path),
  ...(script === undefined ? {} : { script }),
  expect,
  // Which of the two hosts comes first decides how many tries are counted.
  ...(path.endsWith('half-dead') ? { chance: ['seen request'] } : {}),
  ...more,
});

/** Envoy sends again what may have been done already, and keeps bodies up to 1 MiB. */
function notAgain(because: string, script: 'reset' | 'code'): Difference {
  return {
    because,
    aspects: ['status', 'headers', 'body', 'upstream', 'attempts', 'seen request'],
    envoy: { status: 200, attempts: 2 },
    ours:
      script === 'reset'
        ? { status: 503, upstream: null, attempts: 1 }
        : { status: 503, upstream: 'pair', attempts: 1 },
  };
}

const UNSAFE: Difference = notAgain('after a reset only what is safe to repeat is sent again', 'reset');
const TOO_LARGE: Difference = notAgain('bodies of more than 64 KiB are not kept for another try', 'code');

export const RETRIES: readonly Case[] = [
  retry('the first try is good', '/codes', '200', { status: 200, attempts: 1 }),
  retry('a code that is named', '/codes', '503,200', { status: 200, attempts: 2, hosts: 2 }),
  retry('another code that is named', '/codes', '500,200', { status: 200, attempts: 2 }),
  retry('a code that is not named', '/codes', '502,200', { status: 502, attempts: 1 }),
  retry('different codes', '/codes', '500,503,500,200', { status: 200, attempts: 4 }),
  retry('in vain', '/codes', '503', { status: 503, upstream: 'pair', attempts: 4 }),
  retry('in vain, with the last answer', '/codes', '500,500,500,503', {
    status: 503,
    attempts: 4,
    body: 'pair answers 503\n',
  }),
  retry('one more try', '/one', '500,200', { status: 200, attempts: 2 }),
  retry('one more try, in vain', '/one', '500,500,200', { status: 500, attempts: 2 }),
  retry('the number is one when not written', '/default-attempts', '500,500,200', {
    status: 500,
    attempts: 2,
  }),
  retry('a code of 404', '/odd-codes', '404,429,200', { status: 200, attempts: 3 }),
  retry('a reset', '/codes', 'reset,200', { status: 200, attempts: 2 }),
  retry('a connection that is closed without answer', '/codes', 'close,200', { status: 200, attempts: 2 }),
  retry('resets without end', '/codes', 'reset', { status: 503, upstream: null, attempts: 4 }),
  retry('a reset, where no codes are named', '/no-codes', 'reset,200', { status: 200, attempts: 2 }),
  retry('a code, where none are named', '/no-codes', '503,200', { status: 503, attempts: 1 }),
  retry('a reset in the middle of the answer', '/codes', 'half-reset,200', {
    status: 200,
    end: 'incomplete',
    attempts: 1,
  }),
  retry('an end in the middle of the answer', '/codes', 'half,200', {
    status: 200,
    end: 'incomplete',
    attempts: 1,
  }),
  retry('garbage instead of an answer', '/codes', 'raw:garbage,200', {}),
  retry('a pause of at least 300 ms', '/backoff', '500,200', { status: 200, attempts: 2 }),
  retry('nobody listens', '/dead', undefined, { status: 503, upstream: null, attempts: 0 }),
  retry('nobody listens at one of two', '/half-dead', undefined, {
    status: 200,
    upstream: 'half-dead',
    attempts: 1,
  }),
  retry('nobody listens at one of two, again', '/half-dead', undefined, {
    status: 200,
    upstream: 'half-dead',
    attempts: 1,
  }),
  retry('nobody listens at one of two, and again', '/half-dead', undefined, {
    status: 200,
    upstream: 'half-dead',
    attempts: 1,
  }),
  retry(
    'a POST with a body, a code',
    '/codes',
    '503,200',
    { status: 200, attempts: 2, seenBody: 'twice' },
    {
      send: request('POST', '/codes', { body: 'twice' }),
    },
  ),
  retry(
    'a PUT with a chunked body, a code',
    '/codes',
    '503,200',
    { status: 200, attempts: 2, seenBody: 'twice' },
    {
      send: request('PUT', '/codes', { body: 'twice', chunked: true }),
    },
  ),
  retry(
    'a POST, a reset',
    '/codes',
    'reset,200',
    {},
    {
      send: request('POST', '/codes', { body: 'once' }),
      differs: UNSAFE,
    },
  ),
  retry(
    'a PUT, a reset',
    '/codes',
    'reset,200',
    { status: 200, attempts: 2 },
    { send: request('PUT', '/codes', { body: 'x' }) },
  ),
  retry(
    'a PATCH, a reset',
    '/codes',
    'reset,200',
    {},
    {
      send: request('PATCH', '/codes', { body: 'x' }),
      differs: UNSAFE,
    },
  ),
  retry(
    'a DELETE, a reset',
    '/codes',
    'reset,200',
    { status: 200, attempts: 2 },
    { send: request('DELETE', '/codes') },
  ),
  retry(
    'a body of 60 KiB',
    '/codes',
    '503,200',
    { status: 200, attempts: 2 },
    {
      send: request('PUT', '/codes', { bodyBytes: 60 * 1024 }),
    },
  ),
  retry(
    'a body of 200 KiB',
    '/codes',
    '503,200',
    {},
    {
      send: request('PUT', '/codes', { bodyBytes: 200 * 1024 }),
      differs: TOO_LARGE,
    },
  ),
  retry(
    'over HTTP/2',
    '/codes',
    '503,200',
    { status: 200, attempts: 2 },
    {
      send: request('POST', '/codes', { protocol: 'http2', body: 'twice' }),
    },
  ),
  retry('to HTTP/2, a code', '/h2', '500,200', { status: 200, attempts: 2, upstream: 'h2-pair' }),
  retry('to HTTP/2, a reset of the stream', '/h2', 'reset,200', { status: 200, attempts: 2 }),
  retry('to HTTP/2, a refused stream', '/h2', 'refuse,200', { status: 200, attempts: 2 }),
  retry('with changed headers', '/changed', '500,200', {
    status: 200,
    attempts: 2,
    seenHeaders: { 'x-set': '1' },
    headers: { 'x-add': '1' },
  }),
  retry('with a rewritten path', '/rewritten/x', '500,200', { status: 200, attempts: 2, seenPath: '/new/x' }),
  retry('without stanza, a code', '/default', '503,200', { status: 503, attempts: 1 }),
  retry('without stanza, a reset', '/default', 'reset,200', { status: 503, upstream: null, attempts: 1 }),
  retry('without stanza, nobody listens', '/default-dead', undefined, {
    status: 503,
    upstream: null,
    attempts: 0,
  }),
  retry('without stanza, nobody listens at one of two', '/default-half-dead', undefined, {
    status: 200,
    attempts: 1,
  }),
  retry('without stanza, nobody listens at one of two, again', '/default-half-dead', undefined, {
    status: 200,
    attempts: 1,
  }),
  retry(
    'without stanza, a POST where nobody listens at one of two',
    '/default-half-dead',
    undefined,
    { status: 200, attempts: 1 },
    {
      send: request('POST', '/default-half-dead', { body: 'x' }),
    },
  ),
  retry('without stanza, a refused stream', '/default-h2', 'refuse,200', {
    status: 200,
    attempts: 2,
    hosts: 2,
  }),
  retry(
    'without stanza, a POST and a refused stream',
    '/default-h2',
    'refuse,200',
    { status: 200, attempts: 2 },
    {
      send: request('POST', '/default-h2', { body: 'x' }),
    },
  ),
  retry('without stanza, a reset of the stream', '/default-h2', 'reset,200', { status: 503, attempts: 1 }),
  retry('without stanza, refused twice', '/default-h2', 'refuse,refuse,200', { status: 503, attempts: 2 }),
  retry(
    'headers of a client that would retry',
    '/default',
    '503,200',
    {},
    {
      send: get('/default', { 'x-envoy-retry-on': '5xx', 'x-envoy-max-retries': '3' }),
    },
  ),
  retry(
    'connections that are never answered',
    '/hole',
    undefined,
    { status: 503, upstream: null, attempts: 0 },
    { patienceMs: 15_000 },
  ),
];

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
