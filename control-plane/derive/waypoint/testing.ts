import type { JsonValue } from '@bufbuild/protobuf';
import { envoyResourceToJson } from '#api/envoy/json.ts';
import { METADATA_NAMESPACE } from '#api/envoy/metadata.ts';
import { CLUSTER_TYPE, ENDPOINT_TYPE, type EnvoyType, LISTENER_TYPE, ROUTE_TYPE } from '#api/envoy/types.ts';
import { objectYaml, podYaml } from '#test/kit/objects.ts';
import type { Snapshot } from '../snapshot.ts';
import type { WaypointResources } from './waypoint-resources.ts';

const KINDS: Readonly<Record<'listener' | 'routes' | 'cluster' | 'endpoints', EnvoyType>> = {
  listener: LISTENER_TYPE,
  routes: ROUTE_TYPE,
  cluster: CLUSTER_TYPE,
  endpoints: ENDPOINT_TYPE,
};

/** Namespace `pay` behind waypoint `pay/wp`, which has a Service; `ledger` with HTTP on port 80, and two pods of it. */
export const PAY: string = [
  objectYaml('Namespace', 'pay', '', 'labels: {istio.io/use-waypoint: wp}'),
  objectYaml(
    'Gateway',
    'pay/wp',
    '{gatewayClassName: tulle-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}',
  ),
  objectYaml(
    'Service',
    'pay/ledger',
    '{clusterIP: 10.97.2.1, selector: {app: ledger}, ports: [{name: http, port: 80, targetPort: 8080}]}',
  ),
  podYaml('pay/ledger-1', '10.1.2.21', 'labels: {app: ledger}', 'serviceAccountName: ledger'),
  podYaml(
    'pay/ledger-2',
    '10.1.2.22',
    'labels: {app: ledger}, annotations: {ambient.istio.io/redirection: enabled}',
    'serviceAccountName: ledger',
  ),
].join('');

/** What the waypoint is told; the test fails when there is none. */
export function waypointOf(snapshot: Snapshot, key = 'pay/wp'): WaypointResources {
  const waypoint = snapshot.waypoints.get(key);
  if (waypoint !== undefined) return waypoint;
  throw new Error(`no waypoint ${key}; there are ${[...snapshot.waypoints.keys()].join(', ')}`);
}

/** A resource as JSON, or what is in it at a path; the test fails when there is none of that name. */
export function resourceJson(
  waypoint: WaypointResources,
  kind: keyof typeof KINDS,
  name: string,
  ...path: readonly (string | number)[]
): JsonValue | undefined {
  const resources = waypoint.resources.get(KINDS[kind]);
  const resource = resources?.get(name);
  if (resource === undefined)
    throw new Error(`no ${kind} ${name}; there are ${[...(resources?.keys() ?? [])].join(', ')}`);
  return jsonAt(envoyResourceToJson(resource), ...path);
}

/** What is at a path in JSON; undefined where there is no such place. */
export function jsonAt(
  json: JsonValue | undefined,
  ...path: readonly (string | number)[]
): JsonValue | undefined {
  let at: JsonValue | undefined = json;
  for (const step of path)
    at = typeof at === 'object' && at !== null ? (Reflect.get(at, step) as JsonValue | undefined) : undefined;
  return at;
}

/** Its elements, of a list. */
export function jsonList(json: JsonValue | undefined): readonly JsonValue[] {
  return Array.isArray(json) ? json : [];
}

/** What is ours in the metadata of a message. */
export function ownMetadataOf(json: JsonValue | undefined): JsonValue | undefined {
  return jsonAt(json, 'metadata', 'filterMetadata', METADATA_NAMESPACE);
}

/** Names of all resources of a kind. */
export function resourceNames(waypoint: WaypointResources, kind: keyof typeof KINDS): readonly string[] {
  return [...(waypoint.resources.get(KINDS[kind])?.keys() ?? [])];
}
