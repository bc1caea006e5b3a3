import type { CircuitBreakers_Thresholds } from '#api/envoy/gen/envoy/config/cluster/v3/circuit_breaker_pb.ts';
import {
  Cluster_DiscoveryType,
  Cluster_LbPolicy,
  ClusterSchema,
  type Cluster as EnvoyCluster,
} from '#api/envoy/gen/envoy/config/cluster/v3/cluster_pb.ts';
import { HttpProtocolOptionsSchema } from '#api/envoy/gen/envoy/extensions/upstreams/http/v3/http_protocol_options_pb.ts';
import type { Cluster } from '../model.ts';
import { type CompiledTls, compileTransportSocket } from './backend-tls.ts';
import { refuse } from './config-error.ts';
import { decodeAny, decodeMessage, holds, toMs, typeOf } from './decode.ts';
import { clusterMetadata } from './metadata.ts';

/** A Cluster, compiled, before its endpoints and roots are joined to it. */
export interface CompiledCluster {
  readonly cluster: Omit<Cluster, 'endpoints' | 'tls'>;
  /** Name of its ClusterLoadAssignment. */
  readonly endpoints: string;
  readonly tls?: CompiledTls;
}

const UNLIMITED = 4_294_967_295;

/** @throws ConfigError */
export function compileCluster(bytes: Uint8Array): CompiledCluster {
  const cluster = decodeMessage(ClusterSchema, bytes);
  if (
    cluster.clusterDiscoveryType.case !== 'type' ||
    cluster.clusterDiscoveryType.value !== Cluster_DiscoveryType.EDS
  )
    refuse('a type other than EDS is not supported');
  if (cluster.edsClusterConfig?.edsConfig?.configSourceSpecifier.case !== 'ads')
    refuse('endpoints from elsewhere than ads are not supported');
  if ((cluster.commonLbConfig?.healthyPanicThreshold?.value ?? 0) > 0)
    refuse('healthy_panic_threshold other than 0 is not supported');
  const metadata = clusterMetadata(cluster.metadata);
  const tls = compileTransportSocket(cluster.transportSocket);
  return {
    cluster: {
      name: cluster.name,
      backend: metadata?.backend ?? cluster.name,
      service: metadata?.service ?? '',
      protocol: protocolOf(cluster),
      balancing: balancingOf(cluster.lbPolicy),
      connectTimeoutMs: cluster.connectTimeout === undefined ? 5000 : toMs(cluster.connectTimeout),
      retryBudget: budgetOf(cluster.circuitBreakers?.thresholds ?? []),
    },
    endpoints:
      cluster.edsClusterConfig.serviceName === '' ? cluster.name : cluster.edsClusterConfig.serviceName,
    ...(tls === undefined ? {} : { tls }),
  };
}

function protocolOf(cluster: EnvoyCluster): Cluster['protocol'] {
  let protocol: Cluster['protocol'] = 'http1';
  for (const [name, any] of Object.entries(cluster.typedExtensionProtocolOptions)) {
    if (!holds(any, HttpProtocolOptionsSchema))
      return refuse(`options ${name} (${typeOf(any)}) are not known`);
    const options = decodeAny(HttpProtocolOptionsSchema, any).upstreamProtocolOptions;
    if (options.case === 'useDownstreamProtocolConfig') protocol = 'as-downstream';
    else if (options.case === 'explicitHttpConfig')
      protocol = explicitProtocol(options.value.protocolConfig.case);
    else refuse(`${options.case ?? 'no protocol'} of ${name} is not supported`);
  }
  return protocol;
}

function explicitProtocol(config: string | undefined): Cluster['protocol'] {
  if (config === 'http2ProtocolOptions') return 'http2';
  return config === 'http3ProtocolOptions' ? refuse('HTTP/3 is not supported') : 'http1';
}

function balancingOf(policy: Cluster_LbPolicy): Cluster['balancing'] {
  switch (policy) {
    case Cluster_LbPolicy.ROUND_ROBIN:
      return 'round-robin';
    case Cluster_LbPolicy.LEAST_REQUEST:
      return 'least-request';
    case Cluster_LbPolicy.RING_HASH:
      return 'ring-hash';
    default:
      return refuse(`lb_policy ${policy} is not supported`);
  }
}

/** There are no other limits yet: one that is set would not hold. */
function budgetOf(thresholds: readonly CircuitBreakers_Thresholds[]): Cluster['retryBudget'] {
  let budget = { percent: 20, minConcurrent: 3 };
  for (const threshold of thresholds) {
    if (threshold.priority !== 0) refuse('circuit breakers of a priority are not supported');
    const { maxConnections, maxPendingRequests, maxRequests, maxRetries, retryBudget } = threshold;
    for (const limit of [maxConnections, maxPendingRequests, maxRequests, maxRetries])
      if (limit !== undefined && limit !== UNLIMITED)
        refuse(`the limit ${limit} of a circuit breaker is not supported`);
    budget = {
      percent: retryBudget?.budgetPercent?.value ?? 20,
      minConcurrent: retryBudget?.minRetryConcurrency ?? 3,
    };
  }
  return budget;
}
