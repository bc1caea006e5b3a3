import type {
  AuthorizationPolicyObject,
  BackendTlsPolicyObject,
  ConfigMapObject,
  EndpointSliceObject,
  GatewayClassObject,
  GatewayObject,
  GrpcRouteObject,
  HttpRouteObject,
  MeshObject,
  NamespaceObject,
  NodeObject,
  PeerAuthenticationObject,
  PodObject,
  ReferenceGrantObject,
  RequestAuthenticationObject,
  ServiceEntryObject,
  ServiceObject,
  StringMap,
  TcpRouteObject,
  TlsRouteObject,
  TrafficPolicyObject,
  WorkloadEntryObject,
} from '../source/objects.ts';
import { synthesizeServices } from './waypoint/gateway-services.ts';

/** The objects by kind, each list oldest first (see {@link compareAge}), whatever order they came in. */
export interface Inventory {
  readonly namespaces: ReadonlyMap<string, NamespaceObject>;
  readonly nodes: ReadonlyMap<string, NodeObject>;
  /** Those of waypoints that nobody has written among them. */
  readonly services: readonly ServiceObject[];
  readonly pods: readonly PodObject[];
  readonly endpointSlices: readonly EndpointSliceObject[];
  readonly gateways: readonly GatewayObject[];
  readonly gatewayClasses: ReadonlyMap<string, GatewayClassObject>;
  readonly authorizationPolicies: readonly AuthorizationPolicyObject[];
  readonly peerAuthentications: readonly PeerAuthenticationObject[];
  readonly requestAuthentications: readonly RequestAuthenticationObject[];
  readonly httpRoutes: readonly HttpRouteObject[];
  readonly grpcRoutes: readonly GrpcRouteObject[];
  readonly tcpRoutes: readonly TcpRouteObject[];
  readonly tlsRoutes: readonly TlsRouteObject[];
  readonly referenceGrants: readonly ReferenceGrantObject[];
  readonly backendTlsPolicies: readonly BackendTlsPolicyObject[];
  readonly trafficPolicies: readonly TrafficPolicyObject[];
  readonly workloadEntries: readonly WorkloadEntryObject[];
  readonly serviceEntries: readonly ServiceEntryObject[];
  readonly configMaps: readonly ConfigMapObject[];
}

/** Sorts objects by kind. */
export function takeInventory(objects: Iterable<MeshObject>): Inventory {
  const byKind = Map.groupBy(objects, (object) => object.kind);
  const listOf = <Kind extends MeshObject['kind']>(kind: Kind): Extract<MeshObject, { kind: Kind }>[] =>
    // The group of a kind holds objects of that kind only.
    [...((byKind.get(kind) ?? []) as Extract<MeshObject, { kind: Kind }>[])].sort(compareAge);
  const byName = <Object extends MeshObject>(list: readonly Object[]): ReadonlyMap<string, Object> =>
    new Map(list.map((object) => [object.metadata.name, object]));
  const services = listOf('Service');
  const gateways = listOf('Gateway');
  return {
    namespaces: byName(listOf('Namespace')),
    nodes: byName(listOf('Node')),
    services: [...services, ...synthesizeServices(gateways, services)].sort(compareAge),
    pods: listOf('Pod'),
    endpointSlices: listOf('EndpointSlice'),
    gateways,
    gatewayClasses: byName(listOf('GatewayClass')),
    authorizationPolicies: listOf('AuthorizationPolicy'),
    peerAuthentications: listOf('PeerAuthentication'),
    requestAuthentications: listOf('RequestAuthentication'),
    httpRoutes: listOf('HTTPRoute'),
    grpcRoutes: listOf('GRPCRoute'),
    tcpRoutes: listOf('TCPRoute'),
    tlsRoutes: listOf('TLSRoute'),
    referenceGrants: listOf('ReferenceGrant'),
    backendTlsPolicies: listOf('BackendTLSPolicy'),
    trafficPolicies: listOf('TrafficPolicy'),
    workloadEntries: listOf('WorkloadEntry'),
    serviceEntries: listOf('ServiceEntry'),
    configMaps: listOf('ConfigMap'),
  };
}

/**
 * Older first, then by namespace and name. An object without a creation time counts as younger than all that have one:
 * it comes from a file that was just written.
 */
function compareAge(a: MeshObject, b: MeshObject): number {
  return ageOf(a) - ageOf(b) || compareKeys(a, b);
}

/**
 * Older first, then in the order in which they are written: the order in which a cluster would have been told of them.
 */
export function compareCreation(a: MeshObject, b: MeshObject): number {
  return (
    ageOf(a) - ageOf(b) ||
    compareText(a.position.file, b.position.file) ||
    a.position.line - b.position.line ||
    a.position.column - b.position.column ||
    compareKeys(a, b)
  );
}

/** Labels of a namespace as a cluster has them: with its own name; also for one that no object describes. */
export function namespaceLabels(inventory: Inventory, namespace: string): StringMap {
  const labels = new Map(inventory.namespaces.get(namespace)?.metadata.labels);
  return labels.set('kubernetes.io/metadata.name', namespace);
}

/** Order of text by code units, as a cluster sorts names. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

const NO_AGE = Number.MAX_SAFE_INTEGER;

function ageOf(object: MeshObject): number {
  return object.metadata.creationTimestampMs ?? NO_AGE;
}

function compareKeys(a: MeshObject, b: MeshObject): number {
  return (
    compareText(a.metadata.namespace, b.metadata.namespace) || compareText(a.metadata.name, b.metadata.name)
  );
}
