import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { SessionPersistence } from '../model.ts';
import { findSession, type SessionInput, sessionHeaders } from './session.ts';
import { decodeToken, encodeToken } from './session-token.ts';
import { backend, cluster, endpoint } from './testing.ts';

const COOKIE: SessionPersistence = { kind: 'cookie', name: 's1', path: '', ttlSeconds: 0 };
const HEADER: SessionPersistence = { kind: 'header', name: 'x-sess', path: '', ttlSeconds: 0 };
const V1 = endpoint('10.1.0.1');
const V2 = endpoint('10.1.0.2');
const NOW = 1_795_274_000_000;

function input(headers: readonly string[], overrides: Partial<SessionInput> = {}): SessionInput {
  return {
    headers,
    path: '/',
    nowMs: NOW,
    backends: [backend('v1', 90), backend('v2', 10)],
    clusters: new Map([
      ['v1', cluster('v1', [V1])],
      ['v2', cluster('v2', [V2])],
    ]),
    ...overrides,
  };
}

/** What a client sends back after an answer. */
function back(policy: SessionPersistence, answer: readonly string[]): readonly string[] {
  const [name = '', value = ''] = answer;
  return policy.kind === 'header' ? [name, value] : ['cookie', `a=b; ${value.split('; ')[0] ?? ''}`];
}

describe('a token', () => {
  test('is Envoy’s own', () => {
    // Written by Envoy 1.40.
    expect(decodeToken('Cg8xMjcuMC4wLjE6MTkxOTEQveyG2AY=')).toEqual({
      address: '127.0.0.1:19191',
      expires: 1_795_274_301,
    });
    expect(decodeToken('MTI3LjAuMC4xOjE5MTkx')).toEqual({ address: '127.0.0.1:19191' });
    expect(encodeToken({ address: '127.0.0.1:19191' })).toBe('Cg8xMjcuMC4wLjE6MTkxOTE=');
  });

  test('is read as it was written', () => {
    const seconds = fc.option(fc.integer({ min: 0, max: 2 ** 40 }), { nil: undefined });
    fc.assert(
      fc.property(fc.ipV6(), fc.nat(65_535), seconds, seconds, (ip, port, expires, used) => {
        const token = {
          address: `[${ip.toLowerCase()}]:${port}`,
          ...(expires === undefined ? {} : { expires }),
          ...(used === undefined ? {} : { used }),
        };
        expect(decodeToken(encodeToken(token))).toEqual(token);
      }),
    );
  });

  test('of anything else is none', () => {
    fc.assert(
      fc.property(fc.base64String(), (text) => {
        const token = decodeToken(text);
        expect(token === undefined || token.address !== '').toBe(true);
      }),
    );
    for (const text of ['', 'x', '%%%', 'A'.repeat(600), btoa('hello')])
      expect(decodeToken(text)).toBeUndefined();
  });
});

describe('a session', () => {
  test.each([COOKIE, HEADER])('in a $kind leads back to its endpoint, past the weights', (policy) => {
    const answer = sessionHeaders(policy, undefined, { endpoint: V2, path: '/', nowMs: NOW });
    const session = findSession(policy, input(back(policy, answer)));
    expect(session).toMatchObject({ backend: { cluster: 'v2' }, endpoint: V2 });
    expect(sessionHeaders(policy, session, { endpoint: V2, path: '/', nowMs: NOW })).toEqual([]);
  });

  test('is set as Envoy sets it', () => {
    const policy = { ...COOKIE, path: '/pay', ttlSeconds: 120 };
    const [name, value] = sessionHeaders(policy, undefined, { endpoint: V1, path: '/pay/x', nowMs: NOW });
    expect(name).toBe('set-cookie');
    expect(value).toMatch(/^s1="[A-Za-z0-9+/=]+"; Max-Age=120; Path=\/pay; HttpOnly$/);
    expect(sessionHeaders(HEADER, undefined, { endpoint: V1, path: '/', nowMs: NOW })).toEqual([
      'x-sess',
      btoa('10.1.0.1:8080'),
    ]);
  });

  test.each<[string, Partial<SessionPersistence>, object, Partial<SessionInput>]>([
    ['of an address that is no endpoint', {}, { address: '10.9.9.9:22' }, {}],
    ['without the end that the route wants', { ttlSeconds: 60 }, {}, {}],
    ['that has ended', { ttlSeconds: 60 }, { expires: NOW / 1000 - 1 }, {}],
    ['that was idle for too long', { idleMs: 60_000 }, { used: NOW / 1000 - 61 }, {}],
    ['that does not say when it was used', { idleMs: 60_000 }, {}, {}],
    ['that lasts for too long', { absoluteMs: 60_000 }, { created: NOW / 1000 - 61 }, {}],
    ['of a backend with the weight 0', {}, {}, { backends: [backend('v1', 0), backend('v2', 1)] }],
    [
      'of an endpoint that is not healthy',
      {},
      {},
      { clusters: new Map([['v1', cluster('v1', [endpoint('10.1.0.1', { health: 'unhealthy' })])]]) },
    ],
    ['of another path', { path: '/other' }, {}, { path: '/othermore' }],
  ])('%s is none', (_, policy, token, overrides) => {
    const text = encodeToken({ address: '10.1.0.1:8080', ...token });
    expect(findSession({ ...COOKIE, ...policy }, input(['cookie', `s1=${text}`], overrides))).toBeUndefined();
  });

  test('of an endpoint that drains goes on', () => {
    const drains = new Map([['v1', cluster('v1', [endpoint('10.1.0.1', { health: 'draining' })])]]);
    const headers = ['cookie', `s1="${encodeToken({ address: '10.1.0.1:8080' })}"`];
    expect(findSession(COOKIE, input(headers, { clusters: drains }))?.endpoint.health).toBe('draining');
  });

  test('with an idle time is marked anew, and keeps its beginning', () => {
    const policy = { ...COOKIE, idleMs: 60_000, absoluteMs: 600_000 };
    const answer = sessionHeaders(policy, undefined, { endpoint: V1, path: '/', nowMs: NOW });
    const later = NOW + 50_000;
    const session = findSession(policy, input(back(policy, answer), { nowMs: later }));
    const again = sessionHeaders(policy, session, { endpoint: V1, path: '/', nowMs: later });
    expect(again).toHaveLength(2);
    const last = findSession(policy, input(back(policy, again), { nowMs: later + 50_000 }));
    expect(last?.token.created).toBe(NOW / 1000);
  });

  test('that was moved is told so', () => {
    const headers = ['cookie', `s1=${encodeToken({ address: '10.1.0.1:8080' })}`];
    const session = findSession(COOKIE, input(headers));
    expect(sessionHeaders(COOKIE, session, { endpoint: V2, path: '/', nowMs: NOW })).toHaveLength(2);
  });
});
