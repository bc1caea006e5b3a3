import { describe, expect, test } from 'vitest';
import { ENVOY_TYPES } from '#api/envoy/types.ts';
import { PAY, waypointOf } from '#control-plane/derive/waypoint/testing.ts';
import { deriveText, objectYaml, podYaml } from '#test/kit/objects.ts';
import type { Frontend } from '../model.ts';
import { decideRequest, type RequestDecision, type RequestInput } from '../route/decide-request.ts';
import { decideStream } from '../route/decide-stream.ts';
import { SmoothWeights } from '../route/weights.ts';
import { type ConfigStore, createConfigStore } from './store.ts';

const PARENT = 'parentRefs: [{kind: Service, group: "", name: ledger}]';
const V2 = [
  objectYaml(
    'Service',
    'pay/ledger-v2',
    '{clusterIP: 10.97.2.3, selector: {app: ledger-v2}, ports: [{name: http, port: 80, targetPort: 8080}]}',
  ),
  podYaml('pay/ledger-v2-1', '10.1.2.31', 'labels: {app: ledger-v2}'),
].join('');

/** A waypoint that was told all that the control plane makes of some objects; it takes everything. */
function told(objects: string): ConfigStore {
  const store = createConfigStore();
  const waypoint = waypointOf(deriveText(PAY + V2 + objects));
  for (const type of ENVOY_TYPES) {
    const resources = [...(waypoint.resources.get(type)?.values() ?? [])];
    expect(store.apply({ type, updated: resources, removed: [] })).toEqual([]);
  }
  expect(store.missing()).toEqual([]);
  return store;
}

function frontendOf(store: ConfigStore, host: string, port: number, namespace = 'shop'): Frontend {
  const frontend = store.current().frontends.find(host, port, namespace);
  if (frontend === undefined) throw new Error(`nothing serves ${host}:${port}`);
  return frontend;
}

function ask(
  store: ConfigStore,
  head: Partial<RequestInput['head']> = {},
  namespace = 'shop',
): RequestDecision {
  return decideRequest({
    config: store.current(),
    frontend: frontendOf(store, '10.97.2.1', 80, namespace),
    caller: {
      identity: { trustDomain: 'cluster.local', namespace, serviceAccount: 'web' },
      address: { ip: '10.1.0.9', port: 40_000 },
    },
    head: { method: 'GET', target: '/', authority: 'ledger.pay', headers: [], ...head },
    nowMs: 1000,
    draw: () => 0,
    weights: new SmoothWeights(() => 0),
  });
}

function routeYaml(rules: string, name = 'pay/r', kind = 'HTTPRoute'): string {
  return objectYaml(kind, name, `{${PARENT}, rules: [${rules}]}`);
}

describe('what the control plane writes is taken, and acts', () => {
  test('for a service without routes', () => {
    expect(ask(told(''))).toMatchObject({
      kind: 'forward',
      cluster: { backend: 'pay/ledger:80', endpoints: [{}, {}] },
      action: { timeoutMs: 0, retry: { attempts: 1, on: { connectFailure: true, reset: false } } },
    });
  });

  test('for matches, weights and headers', () => {
    const store = told(
      routeYaml(`{matches: [{path: {type: PathPrefix, value: /v2}, headers: [{name: version, value: two}]}],
        backendRefs: [{name: ledger-v2, port: 80}]},
       {filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: "5%"}]}}],
        timeouts: {request: 2s, backendRequest: 1s}, retry: {codes: [500], attempts: 3, backoff: 100ms},
        backendRefs: [{name: ledger, port: 80, weight: 1}, {name: ledger-v2, port: 80, weight: 0}]}`),
    );
    expect(ask(store, { target: '/v2/x', headers: ['version', 'two'] })).toMatchObject({
      cluster: { backend: 'pay/ledger-v2:80' },
      route: { origin: { object: 'HTTPRoute pay/r', rule: 0 } },
    });
    expect(ask(store, { target: '/v2example', headers: ['version', 'two'] })).toMatchObject({
      cluster: { backend: 'pay/ledger:80' },
      requestHeaders: [{}, { set: [['x-a', '5%']] }],
      action: {
        timeoutMs: 2000,
        retry: {
          attempts: 3,
          perTryTimeoutMs: 1000,
          backoffMs: 100,
          on: { statusCodes: [500], reset: true },
        },
      },
    });
  });

  test.each([
    ['PathPrefix', '/foo', '{type: ReplacePrefixMatch, replacePrefixMatch: /xyz}', '/foo/bar', '/xyz/bar'],
    ['PathPrefix', '/foo', '{type: ReplacePrefixMatch, replacePrefixMatch: /}', '/foo/bar', '/bar'],
    ['PathPrefix', '/foo', '{type: ReplacePrefixMatch, replacePrefixMatch: ""}', '/foo', '/'],
    ['PathPrefix', '/foo/', '{type: ReplacePrefixMatch, replacePrefixMatch: /xyz/}', '/foo/bar', '/xyz/bar'],
    ['PathPrefix', '/', '{type: ReplacePrefixMatch, replacePrefixMatch: /xyz}', '/bar', '/xyz/bar'],
    ['Exact', '/foo', '{type: ReplaceFullPath, replaceFullPath: /one}', '/foo', '/one'],
  ])('for rewrites of %s %s with %s: %s is %s', (type, value, path, target, wanted) => {
    const store = told(
      routeYaml(`{matches: [{path: {type: ${type}, value: ${value}}}], backendRefs: [{name: ledger, port: 80}],
        filters: [{type: URLRewrite, urlRewrite: {path: ${path}}}]}`),
    );
    expect(ask(store, { target: `${target}?q` })).toMatchObject({ upstreamTarget: `${wanted}?q` });
  });

  test.each([
    ['{hostname: e.org}', 'http://e.org/a/b'],
    ['{scheme: https}', 'https://ledger.pay/a/b'],
    ['{port: 8083}', 'http://ledger.pay:8083/a/b'],
    ['{port: 80}', 'http://ledger.pay/a/b'],
    ['{scheme: https, port: 443, hostname: e.org}', 'https://e.org/a/b'],
    ['{path: {type: ReplacePrefixMatch, replacePrefixMatch: /n}}', 'http://ledger.pay/n/b'],
    ['{path: {type: ReplaceFullPath, replaceFullPath: /n}, statusCode: 308}', 'http://ledger.pay/n'],
  ])('for the redirect %s', (redirect, location) => {
    const store = told(
      routeYaml(`{matches: [{path: {type: PathPrefix, value: /a}}],
        filters: [{type: RequestRedirect, requestRedirect: ${redirect}}]}`),
    );
    expect(ask(store, { target: '/a/b' })).toMatchObject({ kind: 'redirect', location });
  });

  test('for an invalid backend, which answers 500 for its share', () => {
    const store = told(routeYaml('{backendRefs: [{name: nobody, port: 80}]}'));
    expect(ask(store)).toMatchObject({ status: 500 });
  });

  test('for CORS, mirrors and sessions', () => {
    const store = told(
      routeYaml(`{backendRefs: [{name: ledger, port: 80}],
        sessionPersistence: {type: Cookie, sessionName: s1, idleTimeout: 1m},
        filters: [{type: CORS, cors: {allowOrigins: ["https://*.e.org"], allowCredentials: true, allowMethods: [PUT]}},
          {type: RequestMirror, requestMirror: {backendRef: {name: ledger-v2, port: 80}, percent: 50}}]}`),
    );
    const headers = ['origin', 'https://a.e.org', 'access-control-request-method', 'PUT'];
    expect(ask(store, { headers })).toMatchObject({
      kind: 'forward',
      corsHeaders: [
        'access-control-allow-origin',
        'https://a.e.org',
        'access-control-allow-credentials',
        'true',
      ],
      mirrors: [{ backend: 'pay/ledger-v2:80' }],
      action: { session: { kind: 'cookie', name: 's1', idleMs: 60_000 } },
    });
    expect(ask(store, { method: 'OPTIONS', headers })).toMatchObject({ kind: 'cors-preflight' });
  });

  test('for faults', () => {
    const policy = objectYaml(
      'TrafficPolicy',
      'pay/chaos',
      `{targetRefs: [{kind: Service, group: "", name: ledger}], faults: [
        {name: down, match: {from: {serviceAccounts: [shop/web]}, headers: [{name: x-chaos, value: pay}]},
         abort: {httpStatus: 503}, percent: 100, where: downstream, expiresAfter: 10m},
        {name: slow, delay: {fixed: 2s}, percent: 12.5, where: upstream, expiresAfter: 10m}]}`,
    );
    const store = told(policy);
    const hit = ask(store, { headers: ['x-chaos', 'pay'] });
    expect(hit.kind).toBe('fault-abort');
    expect(ask(store, { headers: ['x-chaos', 'pay'] }, 'other').kind).toBe('forward');
    expect(ask(store)).toMatchObject({
      kind: 'forward',
      attemptFaults: [{ name: 'slow', delay_ms: 2000, percent: 12.5 }],
    });
  });

  test('for GRPCRoutes', () => {
    const store = told(
      routeYaml(
        '{matches: [{method: {service: pay.Ledger, method: Get}}], backendRefs: [{name: ledger-v2, port: 80}]}',
        'pay/g',
        'GRPCRoute',
      ),
    );
    expect(ask(store, { method: 'POST', target: '/pay.Ledger/Get' })).toMatchObject({
      cluster: { backend: 'pay/ledger-v2:80' },
    });
    expect(ask(store, { method: 'POST', target: '/pay.Ledger/Put' })).toMatchObject({ kind: 'not-found' });
  });

  test('for consumer routes, which only their namespace sees', () => {
    const consumer = objectYaml(
      'HTTPRoute',
      'shop/r',
      `{parentRefs: [{kind: Service, group: "", name: ledger, namespace: pay}],
        rules: [{backendRefs: [{name: ledger, namespace: pay, port: 80}],
          filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-who, value: shop}]}}]}]}`,
    );
    const store = told(objectYaml('Namespace', 'shop', '') + consumer);
    expect(frontendOf(store, '10.97.2.1', 80, 'shop').consumerNamespace).toBe('shop');
    expect(ask(store, {}, 'shop')).toMatchObject({ route: { origin: { object: 'HTTPRoute shop/r' } } });
    expect(ask(store, {}, 'other')).toMatchObject({ route: { origin: { object: '' } } });
  });

  test('for TCP, and protocols that nobody declared', () => {
    const service = objectYaml(
      'Service',
      'pay/db',
      '{clusterIP: 10.97.2.9, selector: {app: ledger}, ports: [{name: tcp, port: 5432}, {name: some, port: 9000}]}',
    );
    const store = told(service);
    const tcp = frontendOf(store, '10.97.2.9', 5432);
    expect(tcp.protocol).toBe('tcp');
    const weights = new SmoothWeights(() => 0);
    const config = store.current();
    expect(decideStream({ config, frontend: tcp, serverName: undefined, weights })).toMatchObject({
      kind: 'forward',
      cluster: { backend: 'pay/db:5432' },
    });
    expect(frontendOf(store, '10.97.2.9', 9000)).toMatchObject({ protocol: 'detect', tcp: [{}] });
  });
});
