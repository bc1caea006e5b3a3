import type { Ip } from './address.ts';
import type { GatewayAddress } from './workload.ts';

/** What the port's protocol is said to be; for waypoints and telemetry, a ztunnel ignores it. */
export type AppProtocol = 'UNKNOWN' | 'HTTP11' | 'HTTP2' | 'GRPC' | 'TCP' | 'TLS';

/** A service's port. `targetPort` 0: a named port, which each workload maps. */
export interface ServicePort {
  readonly servicePort: number;
  readonly targetPort: number;
  readonly appProtocol: AppProtocol;
}

/** A VIP. `length`: the prefix of a range of VIPs (ServiceEntry with CIDR); absent: one host. */
export interface NetworkAddress {
  readonly network: string;
  readonly ip: Ip;
  readonly length?: number;
}

/** What two ends of a preference have to share. */
export type LoadBalancingScope = 'REGION' | 'ZONE' | 'SUBZONE' | 'NODE' | 'CLUSTER' | 'NETWORK';

/** How endpoints are chosen; see `ztunnel/next-hop.ts`. */
export interface LoadBalancing {
  readonly routingPreference: readonly LoadBalancingScope[];
  readonly mode: 'UNSPECIFIED' | 'STRICT' | 'FAILOVER' | 'PASSTHROUGH';
  readonly healthPolicy: 'ONLY_HEALTHY' | 'ALLOW_ALL';
}

/** A waypoint with a share of the connections. */
export interface WeightedWaypoint {
  readonly destination: GatewayAddress;
  readonly weight: number;
}

/** A stable name with VIPs and ports: `istio.workload.Service`. Its endpoints are the workloads that name it. */
export interface Service {
  readonly kind: 'service';
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  /** VIPs; none for a headless service. */
  readonly addresses: readonly NetworkAddress[];
  readonly ports: readonly ServicePort[];
  /** Further SPIFFE IDs accepted of its endpoints, as `spiffe://…`. */
  readonly subjectAltNames: readonly string[];
  readonly waypoint?: GatewayAddress;
  readonly weightedWaypoints: readonly WeightedWaypoint[];
  readonly loadBalancing?: LoadBalancing;
  readonly ipFamilies: 'AUTOMATIC' | 'IPV4_ONLY' | 'IPV6_ONLY' | 'DUAL';
  /** Wins over others of the same hostname or VIP. */
  readonly canonical: boolean;
  readonly ingressUseWaypoint: boolean;
  readonly visibility: 'PUBLIC' | 'NAMESPACE';
}

/** Key and xDS resource name of a service: `namespace/hostname`. */
export function serviceKey(service: { readonly namespace: string; readonly hostname: string }): string {
  return `${service.namespace}/${service.hostname}`;
}
