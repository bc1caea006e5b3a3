import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Route } from '../model.ts';
import { canonicalPath } from './canonical-path.ts';
import { decideRequest } from './decide-request.ts';
import { encodeToken } from './session-token.ts';
import {
  backend,
  cluster,
  configOf,
  endpoint,
  fault,
  forwardTo,
  frontend,
  match,
  pathOf,
  requestTo,
  route,
  textOf,
} from './testing.ts';
import { SmoothWeights } from './weights.ts';

const DIRECT: Route['action'] = { kind: 'direct', status: 200, body: 'hey' };

describe('a request', () => {
  test('is forwarded as its route says', () => {
    const only = route({
      match: match({ path: pathOf('/v1') }),
      action: forwardTo([backend('v1')], {
        hostRewrite: 'in.pay',
        pathRewrite: { kind: 'prefix', value: '/x' },
        hashOn: [{ kind: 'source' }],
      }),
      requestHeaders: { set: [['x-r', '1']], add: [], remove: [] },
    });
    const decision = decideRequest(requestTo(configOf([only]), { target: '/v1/%61//b?q=/../1' }));
    expect(decision).toMatchObject({
      kind: 'forward',
      route: only,
      path: '/v1/a/b',
      query: '?q=/../1',
      upstreamTarget: '/x/a/b?q=/../1',
      upstreamAuthority: 'in.pay',
      cluster: { name: 'v1' },
      hashKey: '10.1.0.9',
      requestHeaders: [{ set: [] }, { set: [['x-r', '1']] }],
      faults: { names: [] },
    });
  });

  test.each([
    ['with an ambiguous path', { target: '/a%2fb' }, { kind: 'bad-request', status: 400 }],
    [
      'that no route matches',
      { target: '/v9?x' },
      { kind: 'not-found', status: 404, path: '/v9', query: '?x' },
    ],
    ['for all there is', { method: 'OPTIONS', target: '*' }, { kind: 'not-found' }],
  ])('%s is refused', (_, head, wanted) => {
    const only = route({ match: match({ path: pathOf('/v1') }) });
    expect(decideRequest(requestTo(configOf([only]), head))).toMatchObject(wanted);
  });

  test('is refused with the reason that its service has', () => {
    const refuses = frontend({ refuse: 'RequestAuthentication pay/jwt is not supported' });
    const decision = decideRequest(requestTo(configOf([route()], [], refuses)));
    expect(decision).toEqual({ kind: 'refused', status: 403, reason: refuses.refuse });
  });

  test('waits for its routes with 503', () => {
    const config = { ...configOf([]), routes: new Map() };
    expect(decideRequest(requestTo(config))).toMatchObject({ kind: 'not-ready', status: 503 });
  });

  test('goes by the newest frontend of its tunnel’s name', () => {
    const config = configOf([route()], [cluster('v1')], frontend({ refuse: 'since then' }));
    expect(decideRequest(requestTo(config, {}, { frontend: frontend() }))).toMatchObject({
      reason: 'since then',
    });
  });

  test('is authorized by its canonical path, before faults', () => {
    const only = route({ faults: [fault({ abort_http_status: 503 })] });
    const seen: string[] = [];
    const decision = decideRequest(
      requestTo(
        configOf([only]),
        { target: '/a/%2e%2e/admin' },
        {
          authorize: ({ path }) => {
            seen.push(path);
            return 'AuthorizationPolicy pay/p denies';
          },
        },
      ),
    );
    expect(decision).toMatchObject({ kind: 'refused', reason: 'AuthorizationPolicy pay/p denies' });
    expect(seen).toEqual(['/admin']);
  });

  test('for a backend that is none is answered 500 for its share, and no other', () => {
    const only = route({
      action: forwardTo([backend('v1', 1), backend('invalid|HTTPRoute pay/ledger|0|1', 1)]),
    });
    const input = requestTo(configOf([only]));
    const kinds = [1, 2, 3, 4].map(() => decideRequest(input).kind);
    expect(kinds.toSorted()).toEqual(['forward', 'forward', 'no-cluster', 'no-cluster']);
  });

  test('is redirected, or answered, without a turn of the weights', () => {
    const redirect = route({ action: { kind: 'redirect', status: 301, host: 'e.org', port: 80 } });
    expect(decideRequest(requestTo(configOf([redirect]), { target: '/a?b' }))).toMatchObject({
      kind: 'redirect',
      status: 301,
      location: 'http://e.org/a?b',
    });
    expect(decideRequest(requestTo(configOf([route({ action: DIRECT })])))).toMatchObject({
      kind: 'direct',
      status: 200,
      body: 'hey',
    });
  });

  test('meets faults before all else that its route says', () => {
    const only = route({
      action: DIRECT,
      faults: [fault({ delay_ms: 5, abort_http_status: 418 }), fault({ where: 'upstream' })],
    });
    expect(decideRequest(requestTo(configOf([only])))).toMatchObject({
      kind: 'fault-abort',
      abort: { httpStatus: 418 },
      faults: { delayMs: 5, names: ['chaos'] },
    });
  });

  test('leaves faults of attempts to its attempts', () => {
    const each = fault({ where: 'upstream', abort_http_status: 503 });
    expect(decideRequest(requestTo(configOf([route({ faults: [each] })])))).toMatchObject({
      kind: 'forward',
      faults: { names: [] },
      attemptFaults: [each],
    });
  });

  test('of another origin gets leave, and a preflight its answer, where it is forwarded', () => {
    const cors = {
      allowOrigins: [textOf('http://a')],
      allowCredentials: false,
      allowMethods: '',
      allowHeaders: '',
      exposeHeaders: '',
      maxAge: '',
      forwardsUnknownPreflights: true,
    };
    const headers = ['origin', 'http://a', 'access-control-request-method', 'PUT'];
    const preflight = { method: 'OPTIONS', headers };
    expect(decideRequest(requestTo(configOf([route({ cors })]), { headers }))).toMatchObject({
      kind: 'forward',
      corsHeaders: ['access-control-allow-origin', 'http://a'],
    });
    expect(decideRequest(requestTo(configOf([route({ cors })]), preflight))).toMatchObject({
      kind: 'cors-preflight',
    });
    const direct = route({ cors, action: DIRECT });
    expect(decideRequest(requestTo(configOf([direct]), preflight))).toMatchObject({ kind: 'direct' });
  });

  test('with a session stays with its endpoint, and takes no turn', () => {
    const session = { kind: 'cookie', name: 's', path: '', ttlSeconds: 0 } as const;
    const only = route({ action: forwardTo([backend('v1', 99), backend('v2', 1)], { session }) });
    const clusters = [cluster('v1', [endpoint('10.1.0.1')]), cluster('v2', [endpoint('10.1.0.2')])];
    const headers = ['cookie', `s=${encodeToken({ address: '10.1.0.2:8080' })}`];
    const input = requestTo(configOf([only], clusters), { headers });
    for (let time = 0; time < 5; time += 1)
      expect(decideRequest(input)).toMatchObject({
        cluster: { name: 'v2' },
        session: { endpoint: { address: { ip: '10.1.0.2' } } },
      });
  });

  test('is copied to its mirrors, by their shares', () => {
    const mirrors = [
      { cluster: 'v1', share: 1 },
      { cluster: 'v2', share: 0.4 },
      { cluster: 'none', share: 1 },
    ];
    const only = route({ action: forwardTo([backend('v1')], { mirrors }) });
    const names = [0.3, 0.4].map((drawn) => {
      const decision = decideRequest(requestTo(configOf([only]), {}, { draw: () => drawn }));
      return decision.kind === 'forward' ? decision.mirrors.map(({ name }) => name) : [];
    });
    expect(names).toEqual([['v1', 'v2'], ['v1']]);
  });
});

test('70/30/0 of 500 requests are exact, whatever match of the rule they fit', () => {
  const backends = (): readonly ReturnType<typeof backend>[] => [
    backend('v1', 70),
    backend('v2', 30),
    backend('v3', 0),
  ];
  const routes = ['/a', '/'].map((path, place) =>
    route({
      name: `match ${place}`,
      match: match({ path: pathOf(path) }),
      action: forwardTo(backends()),
    }),
  );
  const weights = new SmoothWeights(() => 0.7);
  const config = configOf(routes);
  const found = new Map<string, number>();
  for (let time = 0; time < 500; time += 1) {
    const target = time % 2 === 0 ? '/a' : '/b';
    const decision = decideRequest(requestTo(config, { target }, { weights }));
    if (decision.kind === 'forward')
      found.set(decision.cluster.name, (found.get(decision.cluster.name) ?? 0) + 1);
  }
  expect(Object.fromEntries(found)).toEqual({ v1: 350, v2: 150 });
});

test('a path and its canonical form come to the same', () => {
  const routes = ['=/a/b', '/a', '~/[a-z]+;.*', '/'].map((path) =>
    route({ name: path, match: match({ path: pathOf(path) }) }),
  );
  const config = configOf(routes);
  const piece = fc.constantFrom('a', 'b', '/', '.', '..', '%61', '%2e', '%3b', ';', '//', '?', '%20', '|');
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 10 }), (pieces) => {
      const target = `/${pieces.join('')}`;
      const canonical = canonicalPath(target);
      const seen: string[] = [];
      const authorize = ({ path }: { readonly path: string }): undefined => {
        seen.push(path);
      };
      const asSent = decideRequest(requestTo(config, { target }, { authorize }));
      if (canonical.kind === 'ambiguous') {
        expect(asSent.kind).toBe('bad-request');
        return;
      }
      const asCanonical = decideRequest(
        requestTo(config, { target: canonical.path + canonical.query }, { authorize }),
      );
      expect(asSent).toEqual(asCanonical);
      expect(seen[0]).toBe(seen[1]);
    }),
    { numRuns: 1000 },
  );
});
