import type { JsonObject } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { packAny } from '#api/envoy/any.ts';
import type {
  RouteActionSchema,
  RouteSchema,
} from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import { CorsPolicySchema } from '#api/envoy/gen/envoy/extensions/filters/http/cors/v3/cors_pb.ts';
import { HTTPFaultSchema } from '#api/envoy/gen/envoy/extensions/filters/http/fault/v3/fault_pb.ts';
import { RouterSchema } from '#api/envoy/gen/envoy/extensions/filters/http/router/v3/router_pb.ts';
import { StatefulSessionPerRouteSchema } from '#api/envoy/gen/envoy/extensions/filters/http/stateful_session/v3/stateful_session_pb.ts';
import { CookieBasedSessionStateSchema } from '#api/envoy/gen/envoy/extensions/http/stateful_session/cookie/v3/cookie_pb.ts';
import { PreviousHostsPredicateSchema } from '#api/envoy/gen/envoy/extensions/retry/host/previous_hosts/v3/previous_hosts_pb.ts';
import type { RouteMetadata } from '#api/envoy/metadata.ts';
import type { ForwardAction, Route } from '../model.ts';
import { compileRouteTable } from './route-table.ts';
import { type Init, LEDGER, routesBytes, routeTo } from './testing.ts';

type RouteInit = Init<typeof RouteSchema>;

function compile(more: RouteInit = {}): Route {
  const [route] = compileRouteTable(routesBytes(LEDGER, [routeTo('v1', more)])).routes;
  if (route === undefined) throw new TypeError('no route');
  return route;
}

function action(init: Init<typeof RouteActionSchema>): RouteInit {
  return {
    action: { case: 'route', value: { clusterSpecifier: { case: 'cluster', value: 'v1' }, ...init } },
  };
}

function forward(init: Init<typeof RouteActionSchema>, more: RouteInit = {}): ForwardAction {
  const compiled = compile({ ...action(init), ...more }).action;
  if (compiled.kind !== 'forward') throw new TypeError('not forwarded');
  return compiled;
}

/** An enum's value of a newer Envoy. */
const NEWER = 9 as 0;

function metadata(ours: RouteMetadata): RouteInit {
  return { metadata: { filterMetadata: { 'tulle.dev': { ...ours } as unknown as JsonObject } } };
}

describe('a match', () => {
  test.each<[NonNullable<RouteInit['match']>['pathSpecifier'], object]>([
    [
      { case: 'prefix', value: '/' },
      { kind: 'prefix', value: '' },
    ],
    [
      { case: 'pathSeparatedPrefix', value: '/a' },
      { kind: 'prefix', value: '/a' },
    ],
    [
      { case: 'path', value: '/a' },
      { kind: 'exact', value: '/a' },
    ],
    [
      { case: 'path', value: '/caf%c3%a9' },
      { kind: 'exact', value: '/caf%C3%A9' },
    ],
    [
      { case: 'safeRegex', value: { regex: '/a.*' } },
      { kind: 'regex', pattern: { source: '/a.*' } },
    ],
  ])('of the path %j', (pathSpecifier, wanted) => {
    expect(compile({ match: { pathSpecifier } as NonNullable<RouteInit['match']> }).match.path).toMatchObject(
      wanted,
    );
  });

  test('of method, headers and query', () => {
    const { match } = compile({
      match: {
        pathSpecifier: { case: 'prefix', value: '/' },
        headers: [
          {
            name: ':method',
            headerMatchSpecifier: {
              case: 'stringMatch',
              value: { matchPattern: { case: 'exact', value: 'GET' } },
            },
          },
          {
            name: 'Version',
            headerMatchSpecifier: {
              case: 'stringMatch',
              value: { matchPattern: { case: 'safeRegex', value: { regex: 'v.' } } },
            },
          },
        ],
        queryParameters: [
          {
            name: 'Q',
            queryParameterMatchSpecifier: {
              case: 'stringMatch',
              value: { matchPattern: { case: 'exact', value: '1' } },
            },
          },
        ],
      },
    });
    expect(match).toMatchObject({
      method: 'GET',
      headers: [{ name: 'version', match: { kind: 'regex' } }],
      query: [{ name: 'Q', match: { kind: 'exact', value: '1' } }],
    });
  });
});

describe('a route', () => {
  test('knows where it was written', () => {
    const { origin } = compile(metadata({ object: 'HTTPRoute pay/ledger', rule: 2, rule_name: 'pay' }));
    expect(origin).toEqual({ object: 'HTTPRoute pay/ledger', rule: 2, ruleName: 'pay' });
  });

  test('changes headers', () => {
    const { requestHeaders } = compile({
      requestHeadersToAdd: [
        { header: { key: 'X-Set', value: '100%%' }, appendAction: 2 },
        { header: { key: 'X-Add', value: '1' } },
        { header: { key: 'X-Empty', value: '' } },
      ],
      requestHeadersToRemove: ['X-Gone'],
    });
    expect(requestHeaders).toEqual({ set: [['x-set', '100%']], add: [['x-add', '1']], remove: ['x-gone'] });
  });

  test('redirects', () => {
    const { action: compiled } = compile({
      match: { pathSpecifier: { case: 'pathSeparatedPrefix', value: '/a' } },
      action: {
        case: 'redirect',
        value: {
          schemeRewriteSpecifier: { case: 'schemeRedirect', value: 'https' },
          hostRedirect: 'e.org',
          portRedirect: 8443,
          pathRewriteSpecifier: { case: 'prefixRewrite', value: '/b' },
          responseCode: 4,
        },
      },
    });
    expect(compiled).toEqual({
      kind: 'redirect',
      status: 308,
      scheme: 'https',
      host: 'e.org',
      port: 8443,
      path: { kind: 'prefix', value: '/b' },
    });
  });

  test('answers itself', () => {
    const body = { specifier: { case: 'inlineString' as const, value: 'gone' } };
    const { action: compiled } = compile({
      action: { case: 'directResponse', value: { status: 500, body } },
    });
    expect(compiled).toEqual({ kind: 'direct', status: 500, body: 'gone' });
  });

  test('has Envoy’s timeout when it does not say, and no retry', () => {
    expect(forward({})).toMatchObject({ timeoutMs: 15_000, retry: { attempts: 0 } });
    expect(forward({ timeout: { seconds: 0n, nanos: 500_000_000 } })).toMatchObject({ timeoutMs: 500 });
  });

  test('retries', () => {
    const { retry } = forward({
      retryPolicy: {
        retryOn: 'connect-failure, refused-stream,reset,retriable-status-codes',
        numRetries: 3,
        retriableStatusCodes: [500, 503],
        perTryTimeout: { seconds: 1n },
        retryBackOff: { baseInterval: { nanos: 100_000_000 } },
        retryHostPredicate: [
          {
            name: 'previous',
            configType: { case: 'typedConfig', value: packAny(PreviousHostsPredicateSchema) },
          },
        ],
        hostSelectionRetryMaxAttempts: 5n,
      },
    });
    expect(retry).toEqual({
      attempts: 3,
      on: { connectFailure: true, reset: true, statusCodes: [500, 503] },
      perTryTimeoutMs: 1000,
      backoffMs: 100,
      maxBackoffMs: 1000,
    });
  });

  test.each([
    ['/', '/xyz', '/bar', '/xyzbar'],
    ['/', '/xyz/', '/bar', '/xyz/bar'],
    ['/a', '/xyz', '/a/bar', '/xyz/bar'],
  ])('rewrites the prefix %s to %s as Envoy would', (prefix, prefixRewrite, path, wanted) => {
    const pathSpecifier =
      prefix === '/'
        ? ({ case: 'prefix', value: prefix } as const)
        : ({ case: 'pathSeparatedPrefix', value: prefix } as const);
    const { pathRewrite } = forward({ prefixRewrite }, { match: { pathSpecifier } });
    const rest = path.slice(prefix === '/' ? 0 : prefix.length);
    const rewritten =
      pathRewrite?.kind === 'regex'
        ? pathRewrite.pattern.replace(path, pathRewrite.substitution)
        : `${pathRewrite?.value}${rest}`;
    expect(rewritten).toBe(wanted);
  });

  test('has faults of its filter and of its metadata, in the order of those', () => {
    const base = { policy: 'TrafficPolicy pay/p', expires_at_ms: 9, where: 'downstream' as const };
    const { faults } = compile({
      ...metadata({
        faults: [
          { ...base, name: 'a', in_filter: false, percent: 12.5, delay_ms: 5, from_namespaces: ['shop'] },
          { ...base, name: 'b', in_filter: true },
        ],
      }),
      typedPerFilterConfig: {
        'envoy.filters.http.fault': packAny(HTTPFaultSchema, {
          delay: {
            faultDelaySecifier: { case: 'fixedDelay', value: { seconds: 2n } },
            percentage: { numerator: 125, denominator: 1 },
          },
          abort: { errorType: { case: 'httpStatus', value: 503 }, percentage: { numerator: 100 } },
        }),
      },
    });
    expect(faults).toEqual([
      { ...base, name: 'a', percent: 12.5, delay_ms: 5, from_namespaces: ['shop'], headers: [] },
      { ...base, name: 'b', percent: 1.25, delay_ms: 2000, headers: [] },
      { ...base, name: 'b', percent: 100, abort_http_status: 503, headers: [] },
    ]);
  });

  test('has a session, and CORS', () => {
    const compiled = compile({
      ...metadata({ session_idle_ms: 60_000 }),
      typedPerFilterConfig: {
        'envoy.filters.http.cors': packAny(CorsPolicySchema, {
          allowOriginStringMatch: [{ matchPattern: { case: 'exact', value: '*' } }],
          allowCredentials: true,
        }),
        'envoy.filters.http.stateful_session': packAny(StatefulSessionPerRouteSchema, {
          override: {
            case: 'statefulSession',
            value: {
              sessionState: {
                name: 'cookie',
                typedConfig: packAny(CookieBasedSessionStateSchema, {
                  cookie: { name: 's1', path: '/pay', ttl: { seconds: 120n } },
                }),
              },
            },
          },
        }),
      },
    });
    expect(compiled.cors).toMatchObject({
      allowOrigins: [{ kind: 'exact', value: '*' }],
      allowCredentials: true,
      forwardsUnknownPreflights: true,
    });
    expect(compiled.action).toMatchObject({
      session: { kind: 'cookie', name: 's1', path: '/pay', ttlSeconds: 120, idleMs: 60_000 },
    });
  });
});

describe('a route is refused for', () => {
  const all = { pathSpecifier: { case: 'prefix' as const, value: '/' } };
  test.each<[string, RouteInit, string]>([
    [
      'a prefix of characters',
      { match: { pathSpecifier: { case: 'prefix', value: '/a' } } },
      'prefix /a is not',
    ],
    ['other cases of letters', { match: { ...all, caseSensitive: false } }, 'match.case_sensitive is not'],
    [
      'a header that is not there',
      {
        match: {
          ...all,
          headers: [{ name: 'a', headerMatchSpecifier: { case: 'presentMatch', value: true } }],
        },
      },
      'headers[0].present_match is not',
    ],
    [
      'an inverted match',
      {
        match: {
          ...all,
          headers: [
            { name: 'a', invertMatch: true, headerMatchSpecifier: { case: 'exactMatch', value: '1' } },
          ],
        },
      },
      'headers[0].invert_match is not',
    ],
    [
      'an expression that is none',
      { match: { pathSpecifier: { case: 'safeRegex', value: { regex: '(' } } } },
      'is no regular expression',
    ],
    [
      'backreferences',
      { match: { pathSpecifier: { case: 'safeRegex', value: { regex: '(a)\\1' } } } },
      'is no regular',
    ],
    ['no action', { action: { case: undefined } }, 'action none is not'],
    [
      'an action that is unknown',
      { action: { case: 'nonForwardingAction', value: {} } },
      'routes[0].non_forwarding_action',
    ],
    [
      'a filter that is unknown',
      { typedPerFilterConfig: { lua: packAny(RouterSchema) } },
      'settings for filter lua (envoy.extensions.filters.http.router.v3.Router) are not known',
    ],
    ['words of retry_on', action({ retryPolicy: { retryOn: 'reset,5xx' } }), '5xx in retry_on is not'],
    [
      'another retry predicate',
      action({ retryPolicy: { retryHostPredicate: [{ name: 'x' }] } }),
      'predicate x is not',
    ],
    ['a header of the pseudo kind', { requestHeadersToRemove: [':path'] }, '":path" is no name'],
    ['Host', { requestHeadersToAdd: [{ header: { key: 'Host', value: 'x' } }] }, 'header host cannot'],
    [
      'command operators',
      { requestHeadersToAdd: [{ header: { key: 'x', value: '%REQ(:path)%' } }] },
      'has a command operator',
    ],
    [
      'adding if absent',
      { requestHeadersToAdd: [{ header: { key: 'x', value: '1' }, appendAction: 1 }] },
      'route "default": append_action 1',
    ],
    [
      'a substitution without its group',
      action({ regexRewrite: { pattern: { regex: 'a' }, substitution: '\\1' } }),
      'names a group that',
    ],
    [
      'weights of which there are none',
      action({
        clusterSpecifier: { case: 'weightedClusters', value: { clusters: [{ name: 'v1', weight: 0 }] } },
      }),
      'have the sum 0',
    ],
    [
      'a redirect elsewhere',
      { action: { case: 'redirect', value: { responseCode: NEWER } } },
      'response_code 9',
    ],
    [
      'a redirect without query',
      { action: { case: 'redirect', value: { stripQuery: true } } },
      'strip_query',
    ],
    [
      'a metadata key that is unknown',
      metadata({ breaker: 1 } as unknown as RouteMetadata),
      'metadata "tulle.dev": ',
    ],
    [
      'a fault without settings',
      metadata({
        faults: [{ name: 'f', policy: 'p', expires_at_ms: 1, where: 'downstream', in_filter: true }],
      }),
      'fault f: its filter',
    ],
    ['hedging', action({ hedgePolicy: {} }), 'virtual_hosts[0].routes[0].route.hedge_policy is not'],
  ])('%s', (_, init, reason) => {
    expect(() => compile(init)).toThrow(reason);
  });

  test('a field of a newer Envoy', () => {
    const bytes = routesBytes(LEDGER, [routeTo('v1')]);
    // Field 60, a varint.
    expect(() => compileRouteTable(Uint8Array.of(...bytes, 0xe0, 0x03, 0x01))).toThrow('field number 60 of');
  });
});
