import { type Case, type Difference, type Expectation, get, request } from '../case.ts';

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
