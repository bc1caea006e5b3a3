import {
  create,
  type DescMessage,
  type JsonObject,
  type Message,
  type MessageInitShape,
  toBinary,
} from '@bufbuild/protobuf';
import { packAny } from '#api/envoy/any.ts';
import { ClusterSchema } from '#api/envoy/gen/envoy/config/cluster/v3/cluster_pb.ts';
import { HealthStatus } from '#api/envoy/gen/envoy/config/core/v3/health_check_pb.ts';
import { ClusterLoadAssignmentSchema } from '#api/envoy/gen/envoy/config/endpoint/v3/endpoint_pb.ts';
import { ListenerSchema } from '#api/envoy/gen/envoy/config/listener/v3/listener_pb.ts';
import type { RouteSchema } from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import { RouteConfigurationSchema } from '#api/envoy/gen/envoy/config/route/v3/route_pb.ts';
import { RouterSchema } from '#api/envoy/gen/envoy/extensions/filters/http/router/v3/router_pb.ts';
import { HttpConnectionManagerSchema } from '#api/envoy/gen/envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager_pb.ts';
import type { EndpointMetadata, ListenerMetadata } from '#api/envoy/metadata.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, type EnvoyType, LISTENER_TYPE, ROUTE_TYPE } from '#api/envoy/types.ts';
import type { ConfigStore, ConfigUpdate, Rejection } from './store.ts';

/** Fields of a message, without the message. */
export type Init<Desc extends DescMessage> = Exclude<MessageInitShape<Desc>, Message>;

/** The name that the tests' service has everywhere. */
export const LEDGER = 'inbound-vip|80|http|ledger.pay.svc.cluster.local';

/** A Listener of HTTP, as the control plane writes them. */
export function listenerBytes(
  name: string,
  metadata: Partial<ListenerMetadata> = {},
  manager: Init<typeof HttpConnectionManagerSchema> = {},
): Uint8Array {
  const chain = packAny(HttpConnectionManagerSchema, {
    statPrefix: name,
    routeSpecifier: {
      case: 'rds',
      value: {
        routeConfigName: name,
        configSource: { configSourceSpecifier: { case: 'ads', value: {} } },
      },
    },
    httpFilters: [
      {
        name: 'envoy.filters.http.router',
        configType: { case: 'typedConfig', value: packAny(RouterSchema, {}) },
      },
    ],
    normalizePath: true,
    mergeSlashes: true,
    pathWithEscapedSlashesAction: 2,
    ...manager,
  });
  return listenerOf(name, metadata, {
    filterChains: [{ filters: [{ name: 'http', configType: { case: 'typedConfig', value: chain } }] }],
  });
}

/** A Listener with filter chains of one's own. */
export function listenerOf(
  name: string,
  metadata: Partial<ListenerMetadata>,
  init: Init<typeof ListenerSchema>,
): Uint8Array {
  const ours = {
    service: 'pay/ledger.pay.svc.cluster.local',
    addresses: ['10.96.0.1', 'ledger.pay.svc.cluster.local'],
    port: 80,
    ...metadata,
  };
  const listener = create(ListenerSchema, {
    name,
    statPrefix: name,
    listenerSpecifier: { case: 'internalListener', value: {} },
    metadata: { filterMetadata: { 'tulle.dev': { ...ours } as unknown as JsonObject } }, // Its lists are read only.
    ...init,
  });
  return toBinary(ListenerSchema, listener);
}

/** A RouteConfiguration with these routes. */
export function routesBytes(name: string, routes: readonly Init<typeof RouteSchema>[]): Uint8Array {
  const table = create(RouteConfigurationSchema, {
    name,
    validateClusters: false,
    virtualHosts: [{ name: 'all', domains: ['*'], routes: [...routes] }],
  });
  return toBinary(RouteConfigurationSchema, table);
}

/** Everything to one cluster. */
export function routeTo(cluster: string, more: Init<typeof RouteSchema> = {}): Init<typeof RouteSchema> {
  return {
    name: 'default',
    match: { pathSpecifier: { case: 'prefix', value: '/' } },
    action: {
      case: 'route',
      value: { clusterSpecifier: { case: 'cluster', value: cluster }, timeout: { seconds: 0n } },
    },
    ...more,
  };
}

/** A Cluster of EDS. */
export function clusterBytes(name: string, init: Init<typeof ClusterSchema> = {}): Uint8Array {
  const cluster = create(ClusterSchema, {
    name,
    clusterDiscoveryType: { case: 'type', value: 3 },
    edsClusterConfig: { edsConfig: { configSourceSpecifier: { case: 'ads', value: {} } } },
    lbPolicy: 1,
    metadata: {
      filterMetadata: {
        'tulle.dev': { backend: 'pay/ledger:80', service: 'pay/ledger.pay.svc.cluster.local' },
      },
    },
    ...init,
  });
  return toBinary(ClusterSchema, cluster);
}

/** Endpoints at `10.1.0.<number>:8080`. */
export function endpointsBytes(
  name: string,
  numbers: readonly number[],
  metadata: Partial<EndpointMetadata> = {},
): Uint8Array {
  const assignment = create(ClusterLoadAssignmentSchema, {
    clusterName: name,
    endpoints: [
      {
        lbEndpoints: numbers.map((number) => ({
          healthStatus: HealthStatus.HEALTHY,
          hostIdentifier: {
            case: 'endpoint' as const,
            value: {
              address: {
                address: {
                  case: 'socketAddress' as const,
                  value: {
                    address: `10.1.0.${number}`,
                    portSpecifier: { case: 'portValue' as const, value: 8080 },
                  },
                },
              },
            },
          },
          metadata: {
            filterMetadata: {
              'tulle.dev': {
                tunnel: 'HBONE',
                identity: 'spiffe://cluster.local/ns/pay/sa/ledger',
                uid: `n1/pay/ledger-${number}`,
                name: `ledger-${number}`,
                namespace: 'pay',
                ...metadata,
              },
            },
          },
        })),
      },
    ],
  });
  return toBinary(ClusterLoadAssignmentSchema, assignment);
}

/** An update of one resource. */
export function updateOf(type: EnvoyType, name: string, value: Uint8Array): ConfigUpdate {
  return { type, updated: [{ name, value }], removed: [] };
}

/** Tells a store of {@link LEDGER}: listener, routes, cluster and two endpoints. */
export function tellLedger(
  store: ConfigStore,
  routes: readonly Init<typeof RouteSchema>[] = [routeTo(LEDGER)],
): readonly Rejection[] {
  return [
    updateOf(LISTENER_TYPE, LEDGER, listenerBytes(LEDGER)),
    updateOf(ROUTE_TYPE, LEDGER, routesBytes(LEDGER, routes)),
    updateOf(ENDPOINT_TYPE, LEDGER, endpointsBytes(LEDGER, [1, 2])),
    updateOf(CLUSTER_TYPE, LEDGER, clusterBytes(LEDGER)),
  ].flatMap((update) => store.apply(update));
}
