import { expect, test } from 'vitest';
import type { CorsPolicy } from '../model.ts';
import { decideCors } from './cors.ts';
import { textOf } from './testing.ts';

function policy(overrides: Partial<CorsPolicy> = {}): CorsPolicy {
  return {
    allowOrigins: [textOf('http://a'), textOf('~https://[^.]*\\.e\\.org')],
    allowCredentials: false,
    allowMethods: 'GET, PUT',
    allowHeaders: 'x-q',
    exposeHeaders: 'x-y',
    maxAge: '5',
    forwardsUnknownPreflights: true,
    ...overrides,
  };
}

const PREFLIGHT = ['access-control-request-method', 'PUT', 'access-control-request-headers', 'x-z'];

test.each<[string, Partial<CorsPolicy>, string, readonly string[], ReturnType<typeof decideCors>]>([
  ['without an origin', {}, 'GET', [], { kind: 'none' }],
  ['of an origin without leave', {}, 'GET', ['origin', 'http://b'], { kind: 'none' }],
  [
    'of an origin with leave',
    {},
    'GET',
    ['origin', 'http://a'],
    {
      kind: 'actual',
      headers: ['access-control-allow-origin', 'http://a', 'access-control-expose-headers', 'x-y'],
    },
  ],
  [
    'of an origin that a pattern allows',
    { exposeHeaders: '' },
    'POST',
    ['origin', 'https://x.e.org'],
    { kind: 'actual', headers: ['access-control-allow-origin', 'https://x.e.org'] },
  ],
  ['of two origins', {}, 'GET', ['origin', 'http://a', 'origin', 'http://a'], { kind: 'none' }],
  ['of an origin that it allows in part', {}, 'GET', ['origin', 'https://x.e.org.evil'], { kind: 'none' }],
  [
    'of any origin, with credentials',
    { allowOrigins: [textOf('*')], allowCredentials: true, exposeHeaders: '' },
    'GET',
    ['origin', 'http://c'],
    {
      kind: 'actual',
      headers: ['access-control-allow-origin', 'http://c', 'access-control-allow-credentials', 'true'],
    },
  ],
  [
    'that is a preflight',
    {},
    'OPTIONS',
    ['origin', 'http://a', ...PREFLIGHT],
    {
      kind: 'preflight',
      headers: [
        ...['access-control-allow-origin', 'http://a', 'access-control-allow-methods', 'GET, PUT'],
        ...['access-control-allow-headers', 'x-q', 'access-control-max-age', '5'],
        ...['access-control-expose-headers', 'x-y'],
      ],
    },
  ],
  [
    'that is a preflight where all is allowed',
    { allowMethods: '*', allowHeaders: '*', maxAge: '', exposeHeaders: '' },
    'OPTIONS',
    ['origin', 'http://a', ...PREFLIGHT],
    {
      kind: 'preflight',
      headers: [
        ...['access-control-allow-origin', 'http://a', 'access-control-allow-methods', 'PUT'],
        ...['access-control-allow-headers', 'x-z'],
      ],
    },
  ],
  [
    'that is a preflight where all is allowed, and wants none',
    { allowHeaders: '*', allowMethods: '', maxAge: '', exposeHeaders: '' },
    'OPTIONS',
    ['origin', 'http://a', 'access-control-request-method', 'PUT'],
    {
      kind: 'preflight',
      headers: ['access-control-allow-origin', 'http://a', 'access-control-allow-headers', ''],
    },
  ],
  [
    'that is a preflight without leave',
    {},
    'OPTIONS',
    ['origin', 'http://b', ...PREFLIGHT],
    { kind: 'none' },
  ],
  [
    'that is one, and is not to be forwarded',
    { forwardsUnknownPreflights: false },
    'OPTIONS',
    ['origin', 'http://b', ...PREFLIGHT],
    { kind: 'preflight', headers: [] },
  ],
  [
    'OPTIONS that is no preflight',
    { exposeHeaders: '' },
    'OPTIONS',
    ['origin', 'http://a'],
    { kind: 'actual', headers: ['access-control-allow-origin', 'http://a'] },
  ],
])('a request %s', (_, overrides, method, headers, wanted) => {
  expect(decideCors(policy(overrides), { method, headers })).toEqual(wanted);
});
