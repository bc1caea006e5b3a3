import type { JsonValue } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { deriveText, objectYaml } from '#test/kit/objects.ts';
import { jsonAt, jsonList, ownMetadataOf, PAY, resourceJson, resourceNames, waypointOf } from './testing.ts';

const LEDGER = 'ledger.pay.svc.cluster.local';
const V2 = objectYaml(
  'Service',
  'pay/ledger-v2',
  '{clusterIP: 10.97.2.3, selector: {app: ledger, version: v2}, ports: [{name: http, port: 80}]}',
);
const clusterOf = (name: string): string => `inbound-vip|80|${name}.pay.svc.cluster.local`;

/** Rules in flow style, as the routes of `pay/ledger`. */
function routesOf(rules: string, more = '', kind = 'HTTPRoute'): readonly JsonValue[] {
  const route = objectYaml(kind, 'pay/r', `{parentRefs: [${PARENT}], rules: [${rules}]}`);
  const waypoint = waypointOf(deriveText(PAY + V2 + route + more));
  return jsonList(
    resourceJson(waypoint, 'routes', `inbound-vip|80|http|${LEDGER}`, 'virtualHosts', 0, 'routes'),
  );
}

const PARENT = '{kind: Service, group: "", name: ledger}';
const BACKEND = 'backendRefs: [{name: ledger, port: 80}]';

describe('matches', () => {
  test.each([
    ['{path: {type: Exact, value: /a}}', { path: '/a' }],
    ['{path: {type: PathPrefix, value: /a}}', { pathSeparatedPrefix: '/a' }],
    ['{path: {type: PathPrefix, value: /a/}}', { pathSeparatedPrefix: '/a' }],
    ['{path: {type: PathPrefix, value: /}}', { prefix: '/' }],
    ['{path: {type: RegularExpression, value: "/a.*"}}', { safeRegex: { regex: '/a.*' } }],
    ['{method: GET}', { prefix: '/', headers: [{ name: ':method', stringMatch: { exact: 'GET' } }] }],
    [
      '{headers: [{name: X-A, value: b}, {name: y, type: RegularExpression, value: "c+"}]}',
      {
        prefix: '/',
        headers: [
          { name: 'x-a', stringMatch: { exact: 'b' } },
          { name: 'y', stringMatch: { safeRegex: { regex: 'c+' } } },
        ],
      },
    ],
    [
      '{queryParams: [{name: Q, value: b}]}',
      { prefix: '/', queryParameters: [{ name: 'Q', stringMatch: { exact: 'b' } }] },
    ],
  ])('%s', (match, expected) => {
    expect(jsonAt(routesOf(`{matches: [${match}], ${BACKEND}}`)[0], 'match')).toEqual(expected);
  });

  test.each([
    ['{service: a.B, method: C}', { path: '/a.B/C' }],
    ['{service: a.B}', { pathSeparatedPrefix: '/a.B' }],
    ['{method: C}', { safeRegex: { regex: '/[^/]+/C' } }],
    ['{type: RegularExpression, service: "a.*"}', { safeRegex: { regex: '/(?:a.*)/[^/]+' } }],
  ])('of a GRPCRoute: %s', (method, expected) => {
    const [route] = routesOf(`{matches: [{method: ${method}}], ${BACKEND}}`, '', 'GRPCRoute');
    expect(jsonAt(route, 'match')).toEqual(expected);
  });
});

test('a route says where it comes from', () => {
  const [route] = routesOf(`{name: main, ${BACKEND}}`);
  expect(jsonAt(route, 'name')).toBe('HTTPRoute pay/r rule 0 match 0');
  expect(ownMetadataOf(route)).toEqual({ object: 'HTTPRoute pay/r', rule: 0, rule_name: 'main' });
});

describe('backends', () => {
  test('share by weight, each with headers of its own', () => {
    const filters =
      'filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-v, value: "2%"}], remove: [x-old]}}]';
    const [route] = routesOf(
      `{backendRefs: [{name: ledger, port: 80, weight: 70}, {name: ledger-v2, port: 80, weight: 30, ${filters}}]}`,
    );
    expect(jsonAt(route, 'route', 'weightedClusters', 'clusters')).toEqual([
      { name: clusterOf('ledger'), weight: 70 },
      {
        name: clusterOf('ledger-v2'),
        weight: 30,
        requestHeadersToAdd: [
          { header: { key: 'x-v', value: '2%%' }, appendAction: 'OVERWRITE_IF_EXISTS_OR_ADD' },
        ],
        requestHeadersToRemove: ['x-old'],
      },
    ]);
  });

  test('that are invalid are clusters that are not there', () => {
    const route = objectYaml(
      'HTTPRoute',
      'pay/r',
      `{parentRefs: [${PARENT}], rules: [{backendRefs: [{name: ledger, port: 80}, {name: none, port: 80}]}]}`,
    );
    const waypoint = waypointOf(deriveText(PAY + route));
    const action = resourceJson(
      waypoint,
      'routes',
      `inbound-vip|80|http|${LEDGER}`,
      'virtualHosts',
      0,
      'routes',
      0,
      'route',
    );
    expect(jsonAt(action, 'clusterNotFoundResponseCode')).toBe('INTERNAL_SERVER_ERROR');
    const [, invalid] = jsonList(jsonAt(action, 'weightedClusters', 'clusters'));
    expect(invalid).toEqual({ name: 'invalid|HTTPRoute pay/r|0|1', weight: 1 });
    expect(resourceNames(waypoint, 'cluster')).not.toContain('invalid|HTTPRoute pay/r|0|1');
  });

  test.each(['{}', '{backendRefs: []}', '{backendRefs: [{name: ledger, port: 80, weight: 0}]}'])(
    'that get no share at all are answered 500: %s',
    (rule) => {
      expect(jsonAt(routesOf(rule)[0], 'directResponse')).toEqual({ status: 500 });
    },
  );

  test('of other waypoints, or of none, have their clusters at this one', () => {
    const shop =
      objectYaml('Service', 'shop/other', '{clusterIP: 10.97.3.3, ports: [{name: http, port: 81}]}') +
      objectYaml(
        'ReferenceGrant',
        'shop/g',
        '{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: pay}], to: [{group: "", kind: Service}]}',
      );
    const route = objectYaml(
      'HTTPRoute',
      'pay/r',
      `{parentRefs: [${PARENT}], rules: [{backendRefs: [{name: other, namespace: shop, port: 81}]}]}`,
    );
    const waypoint = waypointOf(deriveText(PAY + shop + route));
    expect(resourceNames(waypoint, 'cluster')).toContain('inbound-vip|81|other.shop.svc.cluster.local');
    expect(resourceNames(waypoint, 'endpoints')).toContain('inbound-vip|81|other.shop.svc.cluster.local');
    expect(waypoint.serves).not.toContain('shop/other.shop.svc.cluster.local');
  });
});

test('timeouts and retries', () => {
  const plain = jsonAt(routesOf(`{timeouts: {request: 2s, backendRequest: 500ms}, ${BACKEND}}`)[0], 'route');
  expect(plain).toMatchObject({
    timeout: '2s',
    retryPolicy: { retryOn: 'connect-failure,refused-stream', numRetries: 1, perTryTimeout: '0.500s' },
  });
  const [explicit] = routesOf(`{retry: {codes: [500, 503], attempts: 3, backoff: 100ms}, ${BACKEND}}`);
  expect(jsonAt(explicit, 'route')).toMatchObject({
    timeout: '0s',
    retryPolicy: {
      retryOn: 'connect-failure,refused-stream,reset,retriable-status-codes',
      numRetries: 3,
      retriableStatusCodes: [500, 503],
      retryBackOff: { baseInterval: '0.100s' },
    },
  });
  expect(ownMetadataOf(explicit)).toMatchObject({ retry: 'explicit' });
});

describe('filters', () => {
  const filtered = (
    filter: string,
    match = '{path: {type: PathPrefix, value: /foo}}',
  ): JsonValue | undefined => routesOf(`{matches: [${match}], filters: [${filter}], ${BACKEND}}`)[0];

  test('of headers set, add and remove', () => {
    const route = filtered(
      '{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a, value: b}], add: [{name: c, value: d}], remove: [e]}}',
    );
    expect(jsonAt(route, 'responseHeadersToAdd')).toEqual([
      { header: { key: 'a', value: 'b' }, appendAction: 'OVERWRITE_IF_EXISTS_OR_ADD' },
      { header: { key: 'c', value: 'd' } },
    ]);
    expect(jsonAt(route, 'responseHeadersToRemove')).toEqual(['e']);
  });

  test('that would remove Host cannot be done, and are not left out', () => {
    const route = filtered('{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [Host]}}');
    expect(jsonAt(route, 'directResponse', 'status')).toBe(500);
  });

  test.each([
    ['/foo', '/xyz', { prefixRewrite: '/xyz' }],
    ['/foo', '/xyz/', { prefixRewrite: '/xyz' }],
    ['/foo/', '/xyz', { prefixRewrite: '/xyz' }],
    ['/foo', '/', { regexRewrite: { pattern: { regex: '^/foo(?:/(.*))?$' }, substitution: '/\\1' } }],
    ['/f.o', '/', { regexRewrite: { pattern: { regex: '^/f\\.o(?:/(.*))?$' }, substitution: '/\\1' } }],
    ['/', '/xyz', { prefixRewrite: '/xyz/' }],
  ])('that rewrite the prefix %s to %s', (prefix, value, expected) => {
    const filter = `{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: ${value}}}}`;
    const route = filtered(filter, `{path: {type: PathPrefix, value: ${prefix}}}`);
    expect(jsonAt(route, 'route')).toMatchObject(expected);
  });

  test('that rewrite the whole path', () => {
    const route = filtered(
      '{type: URLRewrite, urlRewrite: {hostname: h.example, path: {type: ReplaceFullPath, replaceFullPath: /one}}}',
    );
    expect(jsonAt(route, 'route')).toMatchObject({
      hostRewriteLiteral: 'h.example',
      regexRewrite: { pattern: { regex: '^/.*$' }, substitution: '/one' },
    });
  });

  test('that mirror, a share of the requests', () => {
    const route = filtered(
      '{type: RequestMirror, requestMirror: {backendRef: {name: ledger-v2, port: 80}, fraction: {numerator: 1, denominator: 3}}}',
    );
    expect(jsonAt(route, 'route', 'requestMirrorPolicies')).toEqual([
      {
        cluster: clusterOf('ledger-v2'),
        runtimeFraction: { defaultValue: { numerator: 333_333, denominator: 'MILLION' } },
        disableShadowHostSuffixAppend: true,
      },
    ]);
  });

  test('of CORS, whose origins may have wildcards', () => {
    const route = filtered(
      '{type: CORS, cors: {allowOrigins: ["https://a.example", "https://*.b.example"], allowMethods: [GET, PUT], maxAge: 10}}',
    );
    expect(jsonAt(route, 'typedPerFilterConfig', 'envoy.filters.http.cors')).toMatchObject({
      allowOriginStringMatch: [
        { exact: 'https://a.example' },
        { safeRegex: { regex: 'https://[^/]+\\.b\\.example' } },
      ],
      allowMethods: 'GET,PUT',
      maxAge: '10',
      forwardNotMatchingPreflights: false,
    });
  });

  test('that nobody knows answer 500, for all of the route', () => {
    const routes = routesOf(`{filters: [{type: Later}], ${BACKEND}}, {matches: [{method: PUT}], ${BACKEND}}`);
    expect(routes.map((route) => jsonAt(route, 'directResponse', 'status'))).toEqual([500, 500]);
  });
});

describe('redirects', () => {
  const redirectOf = (redirect: string, port = 80): JsonValue | undefined => {
    const service = objectYaml(
      'Service',
      'pay/s',
      `{clusterIP: 10.97.2.7, ports: [{name: http, port: ${port}}]}`,
    );
    const route = objectYaml(
      'HTTPRoute',
      'pay/r',
      `{parentRefs: [{kind: Service, group: "", name: s}], rules: [{matches: [{path: {type: PathPrefix, value: /foo}}], filters: [{type: RequestRedirect, requestRedirect: ${redirect}}]}]}`,
    );
    const name = `inbound-vip|${port}|http|s.pay.svc.cluster.local`;
    const waypoint = waypointOf(deriveText(PAY + service + route));
    return resourceJson(waypoint, 'routes', name, 'virtualHosts', 0, 'routes', 0, 'redirect');
  };

  test.each([
    ['{hostname: example.org}', 80, { hostRedirect: 'example.org', responseCode: 'FOUND' }],
    [
      '{hostname: example.org}',
      8080,
      { hostRedirect: 'example.org', portRedirect: 8080, responseCode: 'FOUND' },
    ],
    ['{statusCode: 308, port: 8083}', 80, { portRedirect: 8083, responseCode: 'PERMANENT_REDIRECT' }],
    ['{scheme: https}', 80, { schemeRedirect: 'https', responseCode: 'FOUND' }],
    ['{scheme: https}', 8080, { schemeRedirect: 'https', portRedirect: 443, responseCode: 'FOUND' }],
    [
      '{scheme: https, hostname: example.org}',
      8080,
      { schemeRedirect: 'https', hostRedirect: 'example.org', responseCode: 'FOUND' },
    ],
    [
      '{path: {type: ReplacePrefixMatch, replacePrefixMatch: /bar}}',
      80,
      { prefixRewrite: '/bar', responseCode: 'FOUND' },
    ],
    [
      '{path: {type: ReplaceFullPath, replaceFullPath: /one}}',
      80,
      { pathRedirect: '/one', responseCode: 'FOUND' },
    ],
  ])('%s at port %i', (redirect, port, expected) => {
    expect(redirectOf(redirect, port)).toEqual(expected);
  });
});

test('sessions that last', () => {
  const [route] = routesOf(
    `{sessionPersistence: {sessionName: sid, absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}, ${BACKEND}}`,
  );
  expect(
    jsonAt(
      route,
      'typedPerFilterConfig',
      'envoy.filters.http.stateful_session',
      'statefulSession',
      'sessionState',
    ),
  ).toMatchObject({
    name: 'envoy.http.stateful_session.cookie',
    typedConfig: { cookie: { name: 'sid', path: '/', ttl: '3600s' } },
  });
  expect(ownMetadataOf(route)).toMatchObject({ session_absolute_ms: 3_600_000 });
});

test('consumer routes have a listener of their own, and the others keep theirs', () => {
  const route = objectYaml(
    'HTTPRoute',
    'shop/r',
    '{parentRefs: [{kind: Service, group: "", name: ledger, namespace: pay}], rules: [{filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: a, value: b}]}}], backendRefs: [{name: ledger, namespace: pay, port: 80}]}]}',
  );
  const waypoint = waypointOf(deriveText(PAY + route));
  const name = `inbound-vip|80|http|${LEDGER}`;
  const own = resourceJson(waypoint, 'listener', `${name}|from|shop`);
  expect(ownMetadataOf(own)).toMatchObject({
    consumer_namespace: 'shop',
    service: `pay/${LEDGER}`,
    port: 80,
  });
  const routes = resourceJson(waypoint, 'routes', `${name}|from|shop`, 'virtualHosts', 0, 'routes');
  expect(jsonList(routes).map((one) => jsonAt(one, 'name'))).toEqual(['HTTPRoute shop/r rule 0 match 0']);
  const others = resourceJson(waypoint, 'routes', name, 'virtualHosts', 0, 'routes');
  expect(jsonList(others).map((one) => jsonAt(one, 'name'))).toEqual(['default']);
});

describe('calls of gRPC', () => {
  const OPTIONS = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';
  const GRPC = objectYaml('GRPCRoute', 'pay/g', `{parentRefs: [${PARENT}], rules: [{${BACKEND}}]}`);
  const protocolOf = (waypoint: ReturnType<typeof waypointOf>, name: string): unknown =>
    jsonAt(
      resourceJson(waypoint, 'cluster', name),
      'typedExtensionProtocolOptions',
      OPTIONS,
      'explicitHttpConfig',
    );
  const actionOf = (waypoint: ReturnType<typeof waypointOf>): unknown =>
    resourceJson(
      waypoint,
      'routes',
      `inbound-vip|80|http|${LEDGER}`,
      'virtualHosts',
      0,
      'routes',
      0,
      'route',
      'cluster',
    );

  test('go in HTTP/2 also to a port that is declared to be HTTP/1.1, and other requests do not', () => {
    const http = objectYaml(
      'HTTPRoute',
      'pay/r',
      `{parentRefs: [{kind: Service, group: "", name: ledger-v2}], rules: [{${BACKEND}}]}`,
    );
    const waypoint = waypointOf(deriveText(PAY + V2 + GRPC + http));
    const name = `inbound-vip|80|http2|${LEDGER}`;
    expect(actionOf(waypoint)).toBe(name);
    expect(protocolOf(waypoint, name)).toEqual({ http2ProtocolOptions: {} });
    expect(protocolOf(waypoint, clusterOf('ledger'))).toEqual({
      httpProtocolOptions: { enableTrailers: true },
    });
    expect(jsonList(jsonAt(resourceJson(waypoint, 'endpoints', name), 'endpoints'))).toHaveLength(1);
  });

  test('go to the one cluster of a port that is HTTP/2, or does not say', () => {
    for (const port of ['name: grpc', 'name: web']) {
      const waypoint = waypointOf(deriveText(PAY.replace('name: http,', `${port},`) + GRPC));
      expect(resourceNames(waypoint, 'cluster')).toEqual([clusterOf('ledger')]);
    }
  });
});
