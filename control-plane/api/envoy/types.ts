/**
 * The resources of Envoy's that configure a waypoint, over delta ADS beside the workload API: one listener for each port of a
 * service, its route configuration, clusters, endpoints and secrets. docs/api.md has the names and the metadata.
 */

const PREFIX = 'type.googleapis.com/';

export const LISTENER_TYPE: 'type.googleapis.com/envoy.config.listener.v3.Listener' = `${PREFIX}envoy.config.listener.v3.Listener`;
export const ROUTE_TYPE: 'type.googleapis.com/envoy.config.route.v3.RouteConfiguration' = `${PREFIX}envoy.config.route.v3.RouteConfiguration`;
export const CLUSTER_TYPE: 'type.googleapis.com/envoy.config.cluster.v3.Cluster' = `${PREFIX}envoy.config.cluster.v3.Cluster`;
export const ENDPOINT_TYPE: 'type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment' = `${PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment`;
export const SECRET_TYPE: 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret' = `${PREFIX}envoy.extensions.transport_sockets.tls.v3.Secret`;

/** @see ENVOY_TYPES */
export type EnvoyType =
  | typeof CLUSTER_TYPE
  | typeof ENDPOINT_TYPE
  | typeof LISTENER_TYPE
  | typeof ROUTE_TYPE
  | typeof SECRET_TYPE;

/** In the order in which they are pushed, so that nothing names what has not come: make before break. */
export const ENVOY_TYPES: readonly EnvoyType[] = [
  CLUSTER_TYPE,
  ENDPOINT_TYPE,
  SECRET_TYPE,
  LISTENER_TYPE,
  ROUTE_TYPE,
];

/** One resource, as it goes over the wire. */
export interface EnvoyResource {
  readonly type: EnvoyType;
  readonly name: string;
  /** The message, without its `Any`. */
  readonly value: Uint8Array;
}
