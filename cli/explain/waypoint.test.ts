import { describe, expect, test } from 'vitest';
import { type Resource, resourceName, resourceType } from '#api/resource.ts';
import { resourceToJson } from '#api/resource-json.ts';
import { serviceKey } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { policy, rule, service, workload } from '#test/kit/resources.ts';
import type {
  Cluster,
  Fault,
  ForwardAction,
  Frontend,
  RequestMatch,
  Route,
  WaypointConfig,
} from '#waypoint/model.ts';
import { explainConnection } from './explain.ts';
import type { Explanation } from './explanation.ts';
import { formatExplanation } from './explanation-text.ts';
import type { ForwardExplanation } from './waypoint-explanation.ts';

const WAYPOINT = {
  destination: { kind: 'hostname', namespace: 'shop', hostname: 'waypoint.shop.svc.cluster.local' },
  hboneMtlsPort: 15008,
} as const;
const GATEWAY = service({
  name: 'waypoint',
  namespace: 'shop',
  addresses: [{ network: '', ip: '10.96.1.9' }],
});
const CATALOG = service({
  name: 'catalog',
  namespace: 'shop',
  addresses: [{ network: '', ip: '10.96.1.0' }],
  waypoint: WAYPOINT,
});
const CART = pod('cart', '10.244.1.3', 'cart', {});
const V1 = pod('catalog-1', '10.244.2.2', 'catalog', { services: { [serviceKey(CATALOG)]: { 80: 8080 } } });
const V2 = pod('catalog-2', '10.244.2.3', 'catalog', {
  services: { [serviceKey(CATALOG)]: { 80: 8080 } },
  authorizationPolicies: ['shop/catalog'],
});
const INSTANCE = pod('waypoint-0', '10.244.1.9', 'waypoint', {
  services: { [serviceKey(GATEWAY)]: { 15008: 15008 } },
  tunnelProtocol: 'NONE',
});
const ONLY_WEB = policy({
  name: 'catalog',
  namespace: 'shop',
  scope: 'WORKLOAD_SELECTOR',
  rules: [rule({ principals: [{ kind: 'exact', value: 'cluster.local/ns/shop/sa/web' }] })],
});
const RESOURCES: readonly Resource[] = [GATEWAY, CATALOG, CART, V1, V2, INSTANCE, ONLY_WEB];

function pod(
  name: string,
  ip: string,
  serviceAccount: string,
  changes: Parameters<typeof workload>[0],
): Workload {
  return workload({ namespace: 'shop', name, serviceAccount, addresses: [ip], ...changes });
}

const OBJECT = 'HTTPRoute shop/catalog';
const NO_HEADERS = { set: [], add: [], remove: [] };
const ANYTHING: RequestMatch = { path: { kind: 'prefix', value: '' }, headers: [], query: [] };
const FRONTEND: Frontend = {
  name: 'inbound-vip|80|http|catalog',
  service: serviceKey(CATALOG),
  port: 80,
  authorizations: [],
  protocol: 'http1',
  routeTable: 'catalog',
  tcp: [],
};

function cluster(version: string, endpoints: readonly string[]): Cluster {
  return {
    name: version,
    backend: `shop/catalog-${version}:80`,
    service: `shop/catalog-${version}.shop.svc.cluster.local`,
    protocol: 'http1',
    balancing: 'least-request',
    connectTimeoutMs: 5000,
    retryBudget: { percent: 20, minConcurrent: 3 },
    endpoints: endpoints.map((ip) => ({
      address: { ip, port: 8080 },
      health: 'healthy',
      weight: 1,
      tunnel: 'HBONE',
      identity: { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'catalog' },
      workload: { uid: ip, name: ip === '10.244.2.2' ? 'catalog-1' : 'catalog-2', namespace: 'shop' },
    })),
  };
}

function forward(
  weights: Readonly<Record<string, number>>,
  changes: Partial<ForwardAction> = {},
): ForwardAction {
  return {
    kind: 'forward',
    backends: Object.entries(weights).map(([name, weight]) => ({
      cluster: name,
      weight,
      requestHeaders: NO_HEADERS,
      responseHeaders: NO_HEADERS,
    })),
    mirrors: [],
    timeoutMs: 2000,
    retry: {
      attempts: 2,
      on: { connectFailure: true, reset: true, statusCodes: [503] },
      perTryTimeoutMs: 0,
      backoffMs: 0,
      maxBackoffMs: 0,
    },
    hashOn: [],
    ...changes,
  };
}

function route(
  number: number,
  match: Partial<RequestMatch>,
  action: Route['action'],
  faults: readonly Fault[] = [],
): Route {
  return {
    name: `${OBJECT} rule ${number} match 0`,
    origin: { object: OBJECT, rule: number },
    match: { ...ANYTHING, ...match },
    action,
    requestHeaders: NO_HEADERS,
    responseHeaders: NO_HEADERS,
    faults,
  };
}

function explain(
  routes: readonly Route[],
  asked: {
    readonly target?: string;
    readonly headers?: readonly string[];
    readonly frontend?: Frontend;
  } = {},
): Explanation {
  const frontend = asked.frontend ?? FRONTEND;
  const config: WaypointConfig = {
    frontends: {
      find: (ip, port) => (ip === '10.96.1.0' && port === 80 ? frontend : undefined),
      named: () => frontend,
      all: () => [frontend],
    },
    routes: new Map([['catalog', { name: 'catalog', routes }]]),
    clusters: new Map([
      ['v1', cluster('v1', ['10.244.2.2'])],
      ['v2', cluster('v2', ['10.244.2.3'])],
      ['empty', cluster('empty', [])],
    ]),
  };
  const served = {
    resources: RESOURCES.map((resource) => ({
      type: resourceType(resource),
      name: resourceName(resource),
      resource: resourceToJson(resource),
      origin: { object: `${resource.kind} ${resource.name}`, position: `/mesh/${resource.name}.yaml:1:1` },
    })),
  };
  return explainConnection({
    served,
    from: { namespace: 'shop', name: 'cart' },
    to: { host: 'catalog.shop', port: 80 },
    part: {
      waypoints: [{ namespace: 'shop', name: 'waypoint', config }],
      rules: [{ object: OBJECT, positions: ['/mesh/route.yaml:9:5', '/mesh/route.yaml:17:5'] }],
      request: { method: 'GET', target: asked.target ?? '/', headers: asked.headers ?? [] },
      nowMs: Date.parse('2026-01-01T00:00:00Z'),
    },
  });
}

const VERSION = { name: 'x-version', match: { kind: 'exact', value: 'v2' } } as const;
const ROUTES = [
  route(0, { headers: [VERSION] }, forward({ v2: 1 })),
  route(1, {}, forward({ v1: 3, v2: 1 })),
];

function forwarded({ waypoints }: Explanation): ForwardExplanation {
  const action = waypoints[0]?.action;
  if (action?.kind !== 'forward') throw new Error(`not forwarded: ${JSON.stringify(waypoints)}`);
  return action;
}

describe('a request through a waypoint', () => {
  test('is explained from the listener to every endpoint, with who is let in there', () => {
    const explanation = explain(ROUTES);
    expect(explanation.routes[0]?.hop).toMatchObject({
      reason: 'service-waypoint',
      destination: 'shop/waypoint-0',
    });
    expect(explanation.waypoints[0]).toMatchObject({
      waypoint: 'shop/waypoint',
      listener: { name: FRONTEND.name, routes: 'producer' },
      request: { method: 'GET', path: '/', query: '' },
      passedOver: [{ route: `${OBJECT} rule 0 match 0`, why: 'header x-version is not v2' }],
      route: { object: OBJECT, match: 'every request' },
    });
    const { backends, timeoutMs, rewrite } = forwarded(explanation);
    expect({ timeoutMs, rewrite }).toEqual({ timeoutMs: 2000, rewrite: null });
    expect(backends.map(({ backend, share }) => [backend, share])).toEqual([
      ['shop/catalog-v1:80', 0.75],
      ['shop/catalog-v2:80', 0.25],
    ]);
    expect(backends.map(({ endpoints }) => endpoints[0]?.verdict)).toMatchObject([
      { kind: 'allow', reason: 'no-allow-policy' },
      { kind: 'deny', reason: 'no-allow-matched', policy: 'authorization catalog' },
    ]);
    expect(explanation.outcome).toBe('depends on the endpoint');
  });

  test('goes where its headers say', () => {
    const { waypoints, outcome } = explain(ROUTES, { headers: ['x-version', 'v2'] });
    expect(waypoints[0]?.passedOver).toEqual([]);
    expect(forwarded(explain(ROUTES, { headers: ['x-version', 'v2'] })).backends).toHaveLength(1);
    expect(outcome).toBe('refused');
  });

  test('shows what goes upstream when it is rewritten', () => {
    const action = forward(
      { v1: 1 },
      { hostRewrite: 'books', pathRewrite: { kind: 'prefix', value: '/api' } },
    );
    const routes = [route(0, { path: { kind: 'prefix', value: '/v1' } }, action)];
    const { rewrite } = forwarded(explain(routes, { target: '/v1/list?page=2' }));
    expect(rewrite).toEqual({ target: '/api/list?page=2', authority: 'books' });
  });

  test('names the faults that would hit such a request, and no others', () => {
    const fault = (name: string, changes: Partial<Fault>): Fault => ({
      name,
      policy: 'TrafficPolicy shop/chaos',
      expires_at_ms: Date.parse('2026-01-01T00:10:00Z'),
      where: 'downstream',
      headers: [],
      percent: 10,
      abort_http_status: 503,
      ...changes,
    });
    const faults = [
      fault('here', {}),
      fault('for others', { from_namespaces: ['other'] }),
      fault('over', { expires_at_ms: Date.parse('2025-12-31T00:00:00Z') }),
      fault('marked', { headers: [{ name: 'x-chaos', match: { kind: 'exact', value: 'on' } }] }),
    ];
    const { waypoints } = explain([route(0, {}, forward({ v1: 1 }), faults)]);
    expect(waypoints[0]?.faults).toEqual([
      {
        name: 'here',
        policy: 'TrafficPolicy shop/chaos',
        percent: 10,
        does: 'aborts with 503',
        where: 'downstream',
        endsAt: '2026-01-01T00:10:00.000Z',
      },
    ]);
  });

  test.each([
    { when: 'no route fits', routes: ROUTES.slice(0, 1), outcome: 'answered by the waypoint' },
    {
      when: 'it is redirected',
      routes: [route(0, {}, { kind: 'redirect', status: 302, host: 'example.org' })],
      outcome: 'answered by the waypoint',
    },
    { when: 'its path is ambiguous', routes: ROUTES, target: '/a%2fb', outcome: 'refused' },
    { when: 'no backend has an endpoint', routes: [route(0, {}, forward({ empty: 1 }))], outcome: 'refused' },
    {
      when: 'a backend is none',
      routes: [route(0, {}, forward({ v1: 1, 'invalid|HTTPRoute shop/catalog|0|1': 1 }))],
      outcome: 'depends on the endpoint',
    },
  ])('comes to "$outcome" when $when', ({ routes, target, outcome }) => {
    expect(explain(routes, target === undefined ? {} : { target }).outcome).toBe(outcome);
  });

  test('is refused by a policy that its listener names and nobody has', () => {
    const { waypoints, outcome } = explain(ROUTES, {
      frontend: { ...FRONTEND, authorizations: ['shop/gone'] },
    });
    expect(waypoints[0]?.action).toEqual({
      kind: 'refused',
      status: 403,
      reason: 'missing-policy, shop/gone',
    });
    expect(outcome).toBe('refused');
  });

  test('that is no HTTP has its route and its backends', () => {
    const { routeTable: _, ...plain } = FRONTEND;
    const frontend: Frontend = {
      ...plain,
      protocol: 'tcp',
      tcp: [
        {
          serverNames: [],
          backends: forward({ v1: 1 }).backends,
          origin: { object: 'TCPRoute shop/t', rule: 0 },
        },
      ],
    };
    const explanation = explain([], { frontend });
    expect(explanation.waypoints[0]).toMatchObject({ request: null, route: { object: 'TCPRoute shop/t' } });
    expect(forwarded(explanation).backends[0]?.endpoints[0]?.address).toBe('10.244.2.2:8080');
    expect(explanation.outcome).toBe('allowed');
  });

  test('that is TLS is refused where no route has the name that is dialled, and told which names have one', () => {
    const { routeTable: _, ...plain } = FRONTEND;
    const tcp = ['a.example', '*.b.example'].map((name, rule) => ({
      serverNames: [name],
      backends: forward({ v1: 1 }).backends,
      origin: { object: 'TLSRoute shop/t', rule },
    }));
    const { waypoints, outcome } = explain([], { frontend: { ...plain, protocol: 'tls', tcp } });
    expect(waypoints[0]).toMatchObject({
      route: null,
      action: {
        kind: 'refused',
        reason: expect.stringMatching(/no route .*; there is for a\.example, \*\.b\.example$/),
      },
    });
    expect(outcome).toBe('refused');
  });
});

test('for people, each decision of a waypoint is a line', () => {
  const text = formatExplanation(explain(ROUTES));
  expect(text).toMatch(
    /^way {3}waypoint shop\/waypoint: port 80 of shop\/catalog\S+, routes of the service$/m,
  );
  expect(text).toMatch(
    /^ {6}not HTTPRoute shop\/catalog rule 0 match 0 \(header x-version: v2\): header x-version is not v2$/m,
  );
  expect(text).toMatch(
    /^route HTTPRoute shop\/catalog rule 1 match 0 \(every request\) \(\/mesh\/route\.yaml:17:5\)$/m,
  );
  expect(text).toMatch(/^ {6}at most 2000 ms, 2 more tries after no connection, a reset .*, 503$/m);
  expect(text).toMatch(/^to {4}75% shop\/catalog-v1:80 \(weight 3\): least-request$/m);
  expect(text).toMatch(
    /^ {6}shop\/catalog-2 at 10\.244\.2\.3:8080 \(tunnel\): denied: no-allow-matched, authorization catalog/m,
  );
  expect(text).toMatch(/^so {4}depends on the endpoint$/m);
});
