import { isIp, parseIp } from '#api/address.ts';
import type { ApplicationTunnel, GatewayAddress } from '#api/workload.ts';
import type { GatewayObject, ObjectMeta } from '../source/objects.ts';
import { type Inventory, namespaceLabels } from './inventory.ts';
import { selects } from './selectors.ts';
import { isOwnGateway } from './waypoint/gateway-services.ts';

const WAYPOINT_FOR = 'istio.io/waypoint-for';
const INBOUND_BINDING = 'ambient.istio.io/waypoint-inbound-binding';
const HBONE_PORT = 15008;
/** Protocol of a listener that takes connections from the ztunnel beside it with a PROXY header. */
const PROXY_LISTENER = 'istio.io/PROXY';
/** Label that names the Gateway which a pod or Service is part of. */
const GATEWAY_NAME = 'gateway.networking.k8s.io/gateway-name';
const MANAGED = 'gateway.istio.io/managed';
const MANAGED_GATEWAYS: ReadonlySet<string | undefined> = new Set([
  'istio.io-mesh-controller',
  'istio.io-eastwest-controller',
]);

/** A Gateway that traffic can be sent through. */
export interface Waypoint {
  /** `namespace/name`. */
  readonly key: string;
  readonly gateway: GatewayObject;
  readonly address: GatewayAddress;
  /** Whether the address is from the Gateway's status, which is written once a pod of it is ready. */
  readonly hasStatus: boolean;
  /** What it is for: `service`, `workload`, `all` or `none`. */
  readonly trafficType: string;
  /** How its instances want their connections, if they say so. */
  readonly tunnel?: ApplicationTunnel;
}

/** The waypoints of the mesh, and what is needed to say who may use them. */
export interface WaypointTable {
  readonly inventory: Inventory;
  /** Domain of service names: `cluster.local`. */
  readonly domain: string;
  readonly byKey: ReadonlyMap<string, Waypoint>;
}

/** Collects the waypoints. `network` is the one that addresses in a Gateway's status are on. */
export function collectWaypoints(inventory: Inventory, domain: string, network: string): WaypointTable {
  const waypoints = inventory.gateways.flatMap((gateway) => toWaypoint(inventory, gateway, domain, network));
  return { inventory, domain, byKey: new Map(waypoints.map((waypoint) => [waypoint.key, waypoint])) };
}

/** The waypoint that an object (a pod, mostly) is an instance of. */
export function instanceOf(
  table: WaypointTable,
  object: Pick<ObjectMeta, 'namespace' | 'labels'>,
): Waypoint | undefined {
  const name = object.labels.get(GATEWAY_NAME);
  return name ? table.byKey.get(`${object.namespace}/${name}`) : undefined;
}

/** Whether the object says that it is a part of a waypoint or another gateway of the mesh. */
export function isGatewayPart(object: Pick<ObjectMeta, 'labels'>): boolean {
  return MANAGED_GATEWAYS.has(object.labels.get(MANAGED));
}

/** Address by which a waypoint is known that has none in its status. */
export function assumedAddress(domain: string, key: string): GatewayAddress {
  const [namespace = '', name = ''] = key.split('/');
  return hostnameAddress(namespace, `${name}.${namespace}.svc.${domain}`);
}

/** Whether the waypoint's listener allows objects of the namespace to be bound: allowedRoutes, `Same` by default. */
export function allowsNamespace(table: WaypointTable, waypoint: Waypoint, namespace: string): boolean {
  const { listeners } = waypoint.gateway.spec;
  const listener =
    tunnelListener(waypoint) ??
    listeners.find(({ protocol, port }) => protocol === 'HBONE' && port === HBONE_PORT);
  if (listener?.allowedFrom === 'All') return true;
  if (listener?.allowedFrom !== 'Selector') return waypoint.gateway.metadata.namespace === namespace;
  const selector = listener.allowedSelector;
  return selector !== undefined && selects(selector.matchLabels, namespaceLabels(table.inventory, namespace));
}

function toWaypoint(
  inventory: Inventory,
  gateway: GatewayObject,
  domain: string,
  network: string,
): readonly Waypoint[] {
  const { name, namespace, labels, annotations } = gateway.metadata;
  const address = statusAddress(gateway, network);
  if (address === undefined && !isOwnGateway(gateway)) return [];
  const key = `${namespace}/${name}`;
  const gatewayClass = inventory.gatewayClasses.get(gateway.spec.gatewayClassName)?.metadata;
  const tunnel = readTunnel(
    annotations.get(INBOUND_BINDING) ?? gatewayClass?.annotations.get(INBOUND_BINDING) ?? '',
  );
  const waypoint: Waypoint = {
    key,
    gateway,
    address: address ?? assumedAddress(domain, key),
    hasStatus: address !== undefined,
    trafficType: labels.get(WAYPOINT_FOR) ?? gatewayClass?.labels.get(WAYPOINT_FOR) ?? 'service',
    ...(tunnel && { tunnel }),
  };
  return [waypoint];
}

/** A name is preferred: it stays, where an address can be given to another. */
function statusAddress(gateway: GatewayObject, network: string): GatewayAddress | undefined {
  const { addresses } = gateway.status;
  const named = addresses.find(({ type }) => type === 'Hostname');
  if (named !== undefined) return hostnameAddress(gateway.metadata.namespace, named.value);
  const numbered = addresses.find(({ type, value }) => type === 'IPAddress' && isIp(value));
  if (numbered === undefined) return undefined;
  const destination = { kind: 'address', network, ip: parseIp(numbered.value) } as const;
  return { destination, hboneMtlsPort: HBONE_PORT };
}

function hostnameAddress(namespace: string, hostname: string): GatewayAddress {
  return { destination: { kind: 'hostname', namespace, hostname }, hboneMtlsPort: HBONE_PORT };
}

/** `PROXY` or `NONE`, each also with `/port`. */
function readTunnel(text: string): ApplicationTunnel | undefined {
  const [, protocol, port] = /^(PROXY|NONE)(?:\/(\d{1,5}))?$/.exec(text) ?? [];
  return protocol === 'PROXY' || protocol === 'NONE' ? { protocol, port: Number(port ?? 0) } : undefined;
}

function tunnelListener({
  gateway,
  tunnel,
}: Waypoint): GatewayObject['spec']['listeners'][number] | undefined {
  if (tunnel === undefined) return undefined;
  const { listeners } = gateway.spec;
  if (tunnel.port !== 0) return listeners.find(({ port }) => port === tunnel.port);
  return tunnel.protocol === 'PROXY'
    ? listeners.find(({ protocol }) => protocol === PROXY_LISTENER)
    : undefined;
}
