import { create, toBinary } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { packAny } from '#api/envoy/any.ts';
import type { ClusterSchema } from '#api/envoy/gen/envoy/config/cluster/v3/cluster_pb.ts';
import type { ListenerSchema } from '#api/envoy/gen/envoy/config/listener/v3/listener_pb.ts';
import { FaultDelay_HeaderDelaySchema } from '#api/envoy/gen/envoy/extensions/filters/common/fault/v3/fault_pb.ts';
import { HttpInspectorSchema } from '#api/envoy/gen/envoy/extensions/filters/listener/http_inspector/v3/http_inspector_pb.ts';
import { TlsInspectorSchema } from '#api/envoy/gen/envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector_pb.ts';
import { HttpConnectionManagerSchema } from '#api/envoy/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.ts';
import { TcpProxySchema } from '#api/envoy/gen/envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy_pb.ts';
import { SecretSchema } from '#api/envoy/gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.ts';
import { UpstreamTlsContextSchema } from '#api/envoy/gen/envoy/extensions/transport_sockets/tls/v3/tls_pb.ts';
import { HttpProtocolOptionsSchema } from '#api/envoy/gen/envoy/extensions/upstreams/http/v3/http_protocol_options_pb.ts';
import { CLUSTER_TYPE, LISTENER_TYPE, SECRET_TYPE } from '#api/envoy/types.ts';
import type { Frontend } from '../model.ts';
import { compileCluster } from './cluster.ts';
import { compileEndpoints } from './endpoints.ts';
import { compileListener } from './listener.ts';
import { createConfigStore } from './store.ts';
import {
  clusterBytes,
  endpointsBytes,
  type Init,
  LEDGER,
  listenerBytes,
  listenerOf,
  tellLedger,
  updateOf,
} from './testing.ts';

type ListenerInit = Init<typeof ListenerSchema>;
type ClusterInit = Init<typeof ClusterSchema>;

function frontendOf(init: ListenerInit): Frontend {
  return compileListener(listenerOf(LEDGER, {}, init)).frontend;
}

function tcpChain(serverNames: readonly string[], ...clusters: readonly [string, number][]) {
  const proxy = packAny(TcpProxySchema, {
    clusterSpecifier: {
      case: 'weightedClusters',
      value: { clusters: clusters.map(([name, weight]) => ({ name, weight })) },
    },
  });
  return {
    filterChainMatch: { serverNames: [...serverNames] },
    filters: [{ name: 'tcp', configType: { case: 'typedConfig' as const, value: proxy } }],
    metadata: { filterMetadata: { 'tulle.dev': { object: 'TCPRoute pay/ledger', rule: 0 } } },
  };
}

function httpChain() {
  const manager = packAny(HttpConnectionManagerSchema, {
    routeSpecifier: {
      case: 'rds',
      value: {
        routeConfigName: LEDGER,
        configSource: { configSourceSpecifier: { case: 'ads', value: {} } },
      },
    },
    normalizePath: true,
    mergeSlashes: true,
    pathWithEscapedSlashesAction: 2,
  });
  return {
    filterChainMatch: { applicationProtocols: ['http/1.1', 'h2c'] },
    filters: [{ name: 'http', configType: { case: 'typedConfig' as const, value: manager } }],
  };
}

const INSPECTS_HTTP = {
  name: 'http',
  configType: { case: 'typedConfig' as const, value: packAny(HttpInspectorSchema) },
};
const INSPECTS_TLS = {
  name: 'tls',
  configType: { case: 'typedConfig' as const, value: packAny(TlsInspectorSchema) },
};

describe('a listener', () => {
  test.each([
    [0, 'http'],
    [1, 'http1'],
    [2, 'http2'],
  ] as const)('of codec %d is one of %s', (codecType, protocol) => {
    const { frontend, addresses } = compileListener(listenerBytes(LEDGER, { refuse: 'why' }, { codecType }));
    expect(frontend).toMatchObject({ protocol, routeTable: LEDGER, port: 80, refuse: 'why', tcp: [] });
    expect(addresses).toEqual(['10.96.0.1', 'ledger.pay.svc.cluster.local']);
  });

  test('of TCP has weighted backends', () => {
    expect(frontendOf({ filterChains: [tcpChain([], ['v1', 9], ['v2', 1])] })).toMatchObject({
      protocol: 'tcp',
      tcp: [
        {
          serverNames: [],
          backends: [
            { cluster: 'v1', weight: 9 },
            { cluster: 'v2', weight: 1 },
          ],
          origin: { object: 'TCPRoute pay/ledger', rule: 0 },
        },
      ],
    });
  });

  test('of TLS goes by server names', () => {
    const init = {
      listenerFilters: [INSPECTS_TLS],
      filterChains: [tcpChain(['a.e.org'], ['v1', 1]), tcpChain(['*.e.org'], ['v2', 1])],
    };
    const { protocol, tcp } = frontendOf(init);
    expect([protocol, ...tcp.map(({ serverNames }) => serverNames[0])]).toEqual([
      'tls',
      'a.e.org',
      '*.e.org',
    ]);
  });

  test('of a protocol that nobody declared detects it', () => {
    const init = { listenerFilters: [INSPECTS_HTTP], filterChains: [httpChain(), tcpChain([], ['v1', 1])] };
    expect(frontendOf(init)).toMatchObject({ protocol: 'detect', routeTable: LEDGER, tcp: [{}] });
  });

  test.each<[string, () => Uint8Array, string]>([
    [
      'without metadata',
      () => listenerOf(LEDGER, {}, { metadata: {}, filterChains: [httpChain()] }),
      'metadata "tulle.dev" is missing',
    ],
    ['of a port that is none', () => listenerBytes(LEDGER, { port: 70_000 }), 'metadata "tulle.dev".port: '],
    ['without a filter chain', () => listenerOf(LEDGER, {}, {}), 'it has no filter chain'],
    [
      'with a filter that is unknown',
      () =>
        listenerOf(
          LEDGER,
          {},
          {
            filterChains: [
              {
                filters: [
                  { name: 'x', configType: { case: 'typedConfig', value: packAny(HttpInspectorSchema) } },
                ],
              },
            ],
          },
        ),
      'filter x (envoy.extensions.filters.listener.http_inspector.v3.HttpInspector) is not known',
    ],
    [
      'with an http filter that is unknown',
      () =>
        listenerBytes(
          LEDGER,
          {},
          {
            httpFilters: [
              {
                name: 'lua',
                configType: { case: 'typedConfig', value: packAny(FaultDelay_HeaderDelaySchema) },
              },
            ],
          },
        ),
      'http filter lua (envoy.extensions.filters.common.fault.v3.FaultDelay.HeaderDelay) is not known',
    ],
    [
      'that keeps paths as they are',
      () => listenerBytes(LEDGER, {}, { mergeSlashes: false }),
      'merge_slashes',
    ],
    [
      'that keeps escaped slashes',
      () => listenerBytes(LEDGER, {}, { pathWithEscapedSlashesAction: 1 }),
      'REJECT_REQUEST',
    ],
    [
      'with other upgrades',
      () => listenerBytes(LEDGER, {}, { upgradeConfigs: [{ upgradeType: 'CONNECT' }] }),
      'CONNECT',
    ],
    ['of HTTP/3', () => listenerBytes(LEDGER, {}, { codecType: 3 }), 'codec_type 3'],
    [
      'that rewrites Host',
      () => listenerBytes(LEDGER, {}, { stripMatchingHostPort: true }),
      'strip_matching_host_port',
    ],
    [
      'of HTTP and TCP that looks at nothing',
      () => listenerOf(LEDGER, {}, { filterChains: [httpChain(), tcpChain([], ['v1', 1])] }),
      'need an http_inspector',
    ],
    [
      'that terminates TLS',
      () => listenerOf(LEDGER, {}, { filterChains: [{ ...httpChain(), transportSocket: { name: 'tls' } }] }),
      'filter_chains[0].transport_socket is not supported',
    ],
  ])('%s is refused', (_, bytes, reason) => {
    expect(() => compileListener(bytes())).toThrow(reason);
  });

  test('may have filters that it can do without', () => {
    const httpFilters = [{ name: 'x', isOptional: true }];
    expect(compileListener(listenerBytes(LEDGER, {}, { httpFilters })).frontend.protocol).toBe('http');
  });
});

function protocolOptions(init: Init<typeof HttpProtocolOptionsSchema>): ClusterInit {
  return { typedExtensionProtocolOptions: { http: packAny(HttpProtocolOptionsSchema, init) } };
}

describe('a cluster', () => {
  test.each<[string, ClusterInit, object]>([
    ['does least-request', { lbPolicy: 1 }, { balancing: 'least-request', protocol: 'http1' }],
    ['does round-robin', { lbPolicy: 0 }, { balancing: 'round-robin' }],
    ['does ring-hash', { lbPolicy: 2 }, { balancing: 'ring-hash' }],
    [
      'speaks HTTP/2',
      protocolOptions({
        upstreamProtocolOptions: {
          case: 'explicitHttpConfig',
          value: { protocolConfig: { case: 'http2ProtocolOptions', value: {} } },
        },
      }),
      { protocol: 'http2' },
    ],
    [
      'speaks what its clients speak',
      protocolOptions({ upstreamProtocolOptions: { case: 'useDownstreamProtocolConfig', value: {} } }),
      { protocol: 'as-downstream' },
    ],
    [
      'has a budget',
      {
        connectTimeout: { seconds: 2n },
        circuitBreakers: {
          thresholds: [
            {
              maxRetries: 4_294_967_295,
              retryBudget: { budgetPercent: { value: 30 }, minRetryConcurrency: 5 },
            },
          ],
        },
      },
      { retryBudget: { percent: 30, minConcurrent: 5 }, connectTimeoutMs: 2000 },
    ],
  ])('%s', (_, init, wanted) => {
    expect(compileCluster(clusterBytes(LEDGER, init)).cluster).toMatchObject(wanted);
  });

  test.each<[string, ClusterInit, string]>([
    [
      'names its addresses itself',
      { clusterDiscoveryType: { case: 'type', value: 0 } },
      'type other than EDS',
    ],
    ['balances by chance', { lbPolicy: 3 }, 'lb_policy 3'],
    ['panics', { commonLbConfig: { healthyPanicThreshold: { value: 50 } } }, 'healthy_panic_threshold'],
    ['ejects', { outlierDetection: {} }, 'outlier_detection is not supported'],
    ['limits connections', { circuitBreakers: { thresholds: [{ maxConnections: 7 }] } }, 'the limit 7'],
    ['checks health', { healthChecks: [{}] }, 'health_checks is not'],
    ['wraps its connections', { transportSocket: { name: 'quic' } }, 'transport socket quic (nothing)'],
    [
      'trusts everybody',
      {
        transportSocket: {
          name: 'tls',
          configType: { case: 'typedConfig', value: packAny(UpstreamTlsContextSchema, { sni: 'a' }) },
        },
      },
      'TLS without a trusted_ca',
    ],
  ])('that %s is refused', (_, init, reason) => {
    expect(() => compileCluster(clusterBytes(LEDGER, init))).toThrow(reason);
  });

  test('of TLS sends nothing before it knows whom to trust', () => {
    const store = createConfigStore();
    tellLedger(store);
    const tls = packAny(UpstreamTlsContextSchema, {
      sni: 'ledger.e.org',
      commonTlsContext: {
        validationContextType: {
          case: 'combinedValidationContext',
          value: {
            defaultValidationContext: {
              matchTypedSubjectAltNames: [
                { sanType: 2, matcher: { matchPattern: { case: 'exact', value: 'ledger.e.org' } } },
              ],
            },
            validationContextSdsSecretConfig: { name: 'roots' },
          },
        },
      },
    });
    const transportSocket = { name: 'tls', configType: { case: 'typedConfig' as const, value: tls } };
    store.apply(updateOf(CLUSTER_TYPE, LEDGER, clusterBytes(LEDGER, { transportSocket })));
    expect(store.current().clusters.get(LEDGER)?.endpoints).toEqual([]);
    expect(store.interest().secrets).toEqual(['roots']);
    expect(store.missing()).toEqual(['roots']);
    const secret = create(SecretSchema, {
      name: 'roots',
      type: {
        case: 'validationContext',
        value: { trustedCa: { specifier: { case: 'inlineString', value: 'PEM' } } },
      },
    });
    store.apply(updateOf(SECRET_TYPE, 'roots', toBinary(SecretSchema, secret)));
    const cluster = store.current().clusters.get(LEDGER);
    expect(cluster?.endpoints).toHaveLength(2);
    expect(cluster?.tls).toEqual({
      serverName: 'ledger.e.org',
      subjectAltNames: [{ kind: 'dns', value: 'ledger.e.org' }],
      roots: 'PEM',
    });
  });
});

describe('endpoints', () => {
  test('carry the workload behind them', () => {
    const [endpoint] = compileEndpoints(
      endpointsBytes(LEDGER, [1], { workload_type: 'deployment', node: 'n1' }),
    );
    expect(endpoint).toMatchObject({
      identity: { namespace: 'pay', serviceAccount: 'ledger' },
      workload: { uid: 'n1/pay/ledger-1', workloadType: 'deployment', node: 'n1' },
    });
  });

  test('with an identity that is none are refused', () => {
    expect(() => compileEndpoints(endpointsBytes(LEDGER, [1], { identity: 'root' }))).toThrow(
      'identity: not a SPIFFE',
    );
  });

  test('with an address that is none are refused', () => {
    expect(() => compileEndpoints(endpointsBytes(LEDGER, [999]))).toThrow('not an IP address: "10.1.0.999"');
  });
});

test('what is not taken leaves a frontend as it was', () => {
  const store = createConfigStore();
  tellLedger(store);
  const [rejection] = store.apply(
    updateOf(LISTENER_TYPE, LEDGER, listenerBytes(LEDGER, {}, { codecType: 3 })),
  );
  expect(rejection?.reason).toBe(`Listener ${LEDGER}: codec_type 3 is not supported`);
  expect(store.current().frontends.find('10.96.0.1', 80, undefined)?.name).toBe(LEDGER);
});
