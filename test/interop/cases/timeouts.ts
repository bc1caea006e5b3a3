import { type Case, type Expectation, get, grpc, request } from '../case.ts';

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
    'of a call of gRPC',
    '/request',
    'slow:1500',
    { status: 200, upstream: null },
    { send: grpc('/request') },
  ),
  timeout(
    'of a call of gRPC, of a try',
    '/backend',
    'slow:1500',
    { status: 200, upstream: null },
    { send: grpc('/backend') },
  ),
  timeout('that the caller names', '/request', 'slow:200', IN_TIME, {
    send: get('/request', { 'x-envoy-upstream-rq-timeout-ms': '50' }),
  }),
  timeout(
    'of a HEAD',
    '/request',
    'slow:1500',
    { status: 504, body: '' },
    { send: request('HEAD', '/request') },
  ),
  timeout(
    'over HTTP/2',
    '/request',
    'slow:1500',
    { status: 504 },
    { send: request('GET', '/request', { protocol: 'http2' }) },
  ),
];
