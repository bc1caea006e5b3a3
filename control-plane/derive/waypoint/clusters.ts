import { packAny } from '#api/envoy/any.ts';
import {
  Cluster_DiscoveryType,
  Cluster_LbPolicy,
  ClusterSchema,
} from '#api/envoy/gen/envoy/config/cluster/v3/cluster_pb.ts';
import {
  type HttpProtocolOptions_ExplicitHttpConfigSchema,
  HttpProtocolOptionsSchema,
} from '#api/envoy/gen/envoy/extensions/upstreams/http/v3/http_protocol_options_pb.ts';
import type { ClusterMetadata } from '#api/envoy/metadata.ts';
import { CLUSTER_TYPE } from '#api/envoy/types.ts';
import type { AppProtocol } from '#api/service.ts';
import type { Origin } from '../context.ts';
import { type Draft, draft, duration, type Fields, FROM_ADS, ownMetadata } from './messages.ts';

/** How requests are spread over the endpoints. */
export type Balancing = 'least-request' | 'round-robin' | 'ring-hash';

/** What a cluster is made of. */
export interface ClusterParts {
  readonly name: string;
  readonly metadata: ClusterMetadata;
  readonly protocol: AppProtocol;
  readonly balancing: Balancing;
  readonly origin: Origin;
  /** TLS to the application itself. */
  readonly transportSocket?: NonNullable<Fields<typeof ClusterSchema>['transportSocket']>;
}

const CLUSTER = { type: CLUSTER_TYPE, schema: ClusterSchema };
const CONNECT_TIMEOUT_MS = 5000;
const NO_LIMIT = 0xffff_ffff;
const BUDGET_PERCENT = 20;
/** As many retries may be under way whatever the load: when a server dies, all that it had in hand is tried again at once. */
const BUDGET_FLOOR = 50;
const HTTP_OPTIONS = 'envoy.extensions.upstreams.http.v3.HttpProtocolOptions';

const POLICIES: Readonly<Record<Balancing, Cluster_LbPolicy>> = {
  'least-request': Cluster_LbPolicy.LEAST_REQUEST,
  'round-robin': Cluster_LbPolicy.ROUND_ROBIN,
  'ring-hash': Cluster_LbPolicy.RING_HASH,
};

/** A port of a service, or a workload, that requests go to; its endpoints come by themselves, under the same name. */
export function draftCluster({ origin, ...parts }: ClusterParts): Draft {
  const { name, metadata, protocol, balancing, transportSocket } = parts;
  const fields = (): Fields<typeof ClusterSchema> => ({
    name,
    clusterDiscoveryType: { case: 'type', value: Cluster_DiscoveryType.EDS },
    edsClusterConfig: { edsConfig: FROM_ADS, serviceName: name },
    connectTimeout: duration(CONNECT_TIMEOUT_MS),
    lbPolicy: POLICIES[balancing],
    commonLbConfig: { healthyPanicThreshold: { value: 0 } },
    circuitBreakers: {
      thresholds: [
        {
          maxConnections: NO_LIMIT,
          maxPendingRequests: NO_LIMIT,
          maxRequests: NO_LIMIT,
          maxRetries: NO_LIMIT,
          retryBudget: { budgetPercent: { value: BUDGET_PERCENT }, minRetryConcurrency: BUDGET_FLOOR },
        },
      ],
    },
    typedExtensionProtocolOptions: {
      [HTTP_OPTIONS]: packAny(HttpProtocolOptionsSchema, protocolOptions(protocol)),
    },
    ...(transportSocket && { transportSocket }),
    metadata: ownMetadata(metadata),
  });
  return draft(CLUSTER, { name, origin, parts }, fields);
}

/** Trailers pass, as our waypoint lets them. */
const HTTP1 = { enableTrailers: true };

/** As the port declares it; where it does not, as the caller speaks. */
function protocolOptions(protocol: AppProtocol): Fields<typeof HttpProtocolOptionsSchema> {
  switch (protocol) {
    case 'HTTP2':
    case 'GRPC':
      return explicitly({ case: 'http2ProtocolOptions', value: {} });
    case 'HTTP11':
      return explicitly({ case: 'httpProtocolOptions', value: HTTP1 });
    case 'UNKNOWN':
    case 'TCP':
    case 'TLS':
      return {
        upstreamProtocolOptions: {
          case: 'useDownstreamProtocolConfig',
          value: { httpProtocolOptions: HTTP1, http2ProtocolOptions: {} },
        },
      };
  }
}

function explicitly(
  protocolConfig: NonNullable<Fields<typeof HttpProtocolOptions_ExplicitHttpConfigSchema>['protocolConfig']>,
): Fields<typeof HttpProtocolOptionsSchema> {
  return { upstreamProtocolOptions: { case: 'explicitHttpConfig', value: { protocolConfig } } };
}
