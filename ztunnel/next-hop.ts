import { familyOf, formatHostPort, type HostPort, type Ip } from '#api/address.ts';
import { type Service, serviceKey } from '#api/service.ts';
import type { GatewayAddress, Workload } from '#api/workload.ts';
import { type Identity, identitiesEqual } from '#certs/identity.ts';
import { expectedIdentities, identityOf } from './identity-of.ts';
import { chooseAddress, chooseEndpoint, type NoChoice, pickWeighted } from './tables/balance.ts';
import { chooseInstance, formatGateway, isInstanceOf } from './tables/gateway.ts';
import type { Tables } from './tables/tables.ts';

/** An outbound connection as it was captured. */
export interface OutboundConnection {
  readonly tables: Tables;
  /** The workload that calls. */
  readonly source: Workload;
  /** The caller's address. */
  readonly sourceIp: Ip;
  /** Where the application dialled. */
  readonly destination: HostPort;
  /** Network of this node. */
  readonly network: string;
  /** From 0 to below 1. */
  readonly random: () => number;
  /** Workloads (by uid) that were tried in vain for this connection. */
  readonly exclude?: ReadonlySet<string>;
  /** Whether this very ztunnel serves the pod that the workload is, which has that address; absent: no pod but the caller's. */
  readonly servesPod?: (workload: Workload, ip: Ip) => boolean;
}

/** Where a connection goes, and why: plain data, the same in the data path, `explain`, the log and the tests. */
export type NextHop = TunnelHop | SameNodeHop | PassthroughHop | ResolveHop | RefusedHop;

/** Through HBONE. */
export interface TunnelHop {
  readonly kind: 'tunnel';
  readonly reason: 'direct' | 'service-waypoint' | 'workload-waypoint';
  /** Where to dial. */
  readonly hop: HostPort;
  /** `:authority` of the CONNECT. */
  readonly authority: string;
  /** The peer has to be one of these. */
  readonly expected: readonly Identity[];
  /** What `hop` is an address of: the destination, or an instance of its waypoint. */
  readonly destinationWorkload: Workload;
  /** The service that the application addressed. */
  readonly service?: Service;
  readonly viaWaypoint?: GatewayAddress;
  /** Why it is no {@link SameNodeHop}, though both are on one node and nothing stands between them. */
  readonly notSameNode?: NotSameNode;
}

/** What keeps a connection between two pods of one node in a tunnel; `tulle.dev/same-node` is what has been said by either. */
export type NotSameNode =
  | 'source-says-tunnel'
  | 'destination-says-tunnel'
  | 'destination-not-served-here'
  | 'source-address-not-its-own';

/** To the application in another pod of this ztunnel's, inside the process: without TLS, with all of its checks. */
export interface SameNodeHop {
  readonly kind: 'same-node';
  readonly reason: 'both-on-this-node';
  /** The application, in its pod. */
  readonly to: HostPort;
  /** The caller's address in the family of `to`: what policies and the application see. */
  readonly sourceIp: Ip;
  /** The destination has to be one of these. */
  readonly expected: readonly Identity[];
  readonly destinationWorkload: Workload;
  readonly service?: Service;
}

/** By plain TCP. */
export interface PassthroughHop {
  readonly kind: 'passthrough';
  readonly reason: 'unknown-destination' | 'passthrough-service' | 'destination-not-in-mesh';
  readonly to: HostPort;
  readonly destinationWorkload?: Workload;
  readonly service?: Service;
}

/** To a workload that has a hostname and no address: look it up, then {@link completeNextHop}. */
export interface ResolveHop {
  readonly kind: 'resolve';
  readonly reason: 'workload-has-only-a-hostname';
  readonly hostname: string;
  readonly targetPort: number;
  readonly preferredFamily: 4 | 6;
  readonly destinationWorkload: Workload;
  readonly service?: Service;
}

/** Why a connection is refused. */
export type RefusalReason =
  | 'self-call'
  | NoChoice
  | 'waypoint-not-found'
  | 'waypoint-not-ready'
  | 'hostname-not-resolved';

/** Not at all. */
export interface RefusedHop {
  readonly kind: 'refuse';
  readonly reason: RefusalReason;
  /** For people: what was refused and what is missing. */
  readonly message: string;
  readonly service?: Service;
  readonly destinationWorkload?: Workload;
}

/**
 * Decides where an outbound connection goes: fact sheet ambient-wire.md, 3.1, steps 2 to 8. A waypoint that is bound and
 * cannot be used is never gone round.
 */
export function decideNextHop(connection: OutboundConnection): NextHop {
  const { tables, source, destination, network } = connection;
  if (isSelfCall(connection)) return refuse(connection, 'self-call', 'the port belongs to the mesh');
  const atAddress = tables.workloadByIp(network, destination.ip);
  const byVip = tables.serviceByVip(network, destination.ip, source.namespace);
  const addressed = atAddress === undefined ? byVip : undefined;
  const waypoint = addressed && waypointOf(addressed, connection.random);
  if (waypoint !== undefined) return toWaypoint(connection, waypoint, 'service-waypoint', addressed);
  // A range of a service's addresses may cover a workload: neither the workload's waypoint nor its tunnel is gone round.
  if (atAddress?.waypoint !== undefined) return toWorkload(connection, atAddress);
  if (byVip?.loadBalancing?.mode === 'PASSTHROUGH' && atAddress?.tunnelProtocol !== 'HBONE') {
    return { kind: 'passthrough', reason: 'passthrough-service', to: destination, service: byVip };
  }
  const isPassthrough = byVip?.loadBalancing?.mode === 'PASSTHROUGH';
  const balanced = byVip && !isPassthrough ? toEndpoint(connection, byVip) : undefined;
  if (balanced !== undefined && (balanced.kind !== 'refuse' || atAddress === undefined)) return balanced;
  if (atAddress === undefined) return { kind: 'passthrough', reason: 'unknown-destination', to: destination };
  return toWorkload(connection, atAddress);
}

/**
 * Goes on from a {@link ResolveHop} with the addresses its hostname has now; one of the preferred family where there is
 * one, at random.
 */
export function completeNextHop(hop: ResolveHop, addresses: readonly Ip[], random: () => number): NextHop {
  const preferred = addresses.filter((ip) => familyOf(ip) === hop.preferredFamily);
  const choice = preferred.length > 0 ? preferred : addresses;
  const ip = choice[Math.floor(random() * choice.length)];
  const { destinationWorkload, service } = hop;
  if (ip !== undefined) return farAway({ ip, port: hop.targetPort }, destinationWorkload, service);
  const message = `no healthy upstream: ${hop.hostname} has no address`;
  return { kind: 'refuse', reason: 'hostname-not-resolved', message, destinationWorkload, ...and(service) };
}

/** Ports of the ztunnel itself, in every pod: fact sheet ambient-wire.md, 2.1. */
const MESH_PORTS: ReadonlySet<number> = new Set([15001, 15006, 15008]);

function isSelfCall({ destination, source, sourceIp }: OutboundConnection): boolean {
  const { ip, port } = destination;
  const isOwn = ip === '::1' || ip.startsWith('127.') || ip === sourceIp || source.addresses.includes(ip);
  return isOwn && MESH_PORTS.has(port);
}

/** The weighted ones share the connections; if none has weight, the plain one takes all. */
function waypointOf(service: Service, random: () => number): GatewayAddress | undefined {
  return pickWeighted(service.weightedWaypoints, random)?.destination ?? service.waypoint;
}

function toWaypoint(
  connection: OutboundConnection,
  waypoint: GatewayAddress,
  reason: 'service-waypoint' | 'workload-waypoint',
  service?: Service,
): NextHop {
  const { tables, source, destination, random, exclude } = connection;
  const instance = chooseInstance(tables, waypoint, source, destination.ip, random, exclude);
  if (instance.kind === 'none') {
    const { refusal, why } = WHY_NO_WAYPOINT[instance.reason];
    return refuse(connection, refusal, `waypoint ${formatGateway(waypoint)} ${why}`, service);
  }
  return {
    kind: 'tunnel',
    reason,
    hop: instance.hop,
    authority: formatHostPort(destination),
    expected: expectedIdentities(instance.workload, instance.service),
    destinationWorkload: instance.workload,
    viaWaypoint: waypoint,
    ...and(service),
  };
}

const WHY_NO_WAYPOINT = {
  'not-found': { refusal: 'waypoint-not-found', why: 'does not exist' },
  'not-ready': { refusal: 'waypoint-not-ready', why: 'has no healthy endpoint' },
  'other-network': {
    refusal: 'other-network',
    why: 'is on another network, which cannot be reached from here',
  },
} as const;

/** To one of a service's endpoints. */
function toEndpoint(connection: OutboundConnection, service: Service): NextHop {
  const { tables, source, destination, random, exclude } = connection;
  const choice = chooseEndpoint(
    { tables, service, port: destination.port, source, purpose: 'application', exclude },
    random,
  );
  if (choice.kind === 'none') return refuse(connection, choice.reason, WHY_NONE[choice.reason], service);
  const { workload, targetPort } = choice;
  const ip = chooseAddress(workload, service, destination.ip);
  if (ip !== undefined) return direct(connection, { ip, port: targetPort }, workload, service);
  return {
    kind: 'resolve',
    reason: 'workload-has-only-a-hostname',
    hostname: workload.hostname,
    targetPort,
    preferredFamily: familyOf(destination.ip),
    destinationWorkload: workload,
    service,
  };
}

/** To a workload that the application addressed itself. Only its waypoint may come without going through it. */
function toWorkload(connection: OutboundConnection, workload: Workload): NextHop {
  const { waypoint } = workload;
  if (waypoint !== undefined && !comesFrom(connection, waypoint)) {
    return toWaypoint(connection, waypoint, 'workload-waypoint');
  }
  return direct(connection, connection.destination, workload, undefined);
}

function comesFrom({ tables, source, sourceIp }: OutboundConnection, waypoint: GatewayAddress): boolean {
  const caller = tables.workloadByIp(source.network, sourceIp);
  return (
    caller !== undefined &&
    identitiesEqual(identityOf(caller), identityOf(source)) &&
    isInstanceOf(tables, waypoint, caller)
  );
}

/** Nothing stands in between. */
function direct(
  connection: OutboundConnection,
  to: HostPort,
  workload: Workload,
  service: Service | undefined,
): NextHop {
  const far = farAway(to, workload, service);
  const isNear = workload.node === connection.source.node && !workload.nativeTunnel;
  if (far.kind !== 'tunnel' || connection.servesPod === undefined || !isNear) return far;
  const sourceIp = ownAddress(connection, to.ip);
  const notSameNode = whyTunnel(connection, workload, to.ip);
  if (notSameNode !== undefined) return { ...far, notSameNode };
  if (sourceIp === undefined) return { ...far, notSameNode: 'source-address-not-its-own' };
  return {
    kind: 'same-node',
    reason: 'both-on-this-node',
    to,
    sourceIp,
    expected: far.expected,
    destinationWorkload: workload,
    ...and(service),
  };
}

function whyTunnel(
  { source, servesPod }: OutboundConnection,
  workload: Workload,
  ip: Ip,
): NotSameNode | undefined {
  if (source.sameNode === 'tunnel') return 'source-says-tunnel';
  if (workload.sameNode === 'tunnel') return 'destination-says-tunnel';
  const isServed = workload.addresses.includes(ip) && servesPod?.(workload, ip) === true;
  return isServed ? undefined : 'destination-not-served-here';
}

/**
 * What a tunnel's far end would see the caller come from. An application may have bound to any address that its pod has given
 * itself: that is nobody's to believe, and is left to the tunnel, whose own address is the pod's.
 */
function ownAddress({ source, sourceIp }: OutboundConnection, to: Ip): Ip | undefined {
  if (!source.addresses.includes(sourceIp)) return undefined;
  const family = familyOf(to);
  return familyOf(sourceIp) === family ? sourceIp : source.addresses.find((ip) => familyOf(ip) === family);
}

/** To where it is, whichever node that is. */
function farAway(to: HostPort, workload: Workload, service: Service | undefined): TunnelHop | PassthroughHop {
  if (workload.tunnelProtocol === 'NONE') {
    const reason = 'destination-not-in-mesh';
    return { kind: 'passthrough', reason, to, destinationWorkload: workload, ...and(service) };
  }
  return {
    kind: 'tunnel',
    reason: 'direct',
    hop: { ip: to.ip, port: HBONE_PORT },
    authority: formatHostPort(to),
    expected: expectedIdentities(workload, service),
    destinationWorkload: workload,
    ...and(service),
  };
}

const HBONE_PORT = 15008;

const WHY_NONE: Readonly<Record<NoChoice, string>> = {
  'service-port-unknown': 'the service has no such port',
  'no-healthy-endpoint': 'the service has no healthy endpoint with that port',
  'other-network': 'its endpoints are on another network, which cannot be reached from here',
  'other-network-without-gateway': 'its endpoints are on another network, which has no gateway',
};

function refuse(
  { destination }: OutboundConnection,
  reason: RefusalReason,
  why: string,
  service?: Service,
): RefusedHop {
  const what = reason === 'self-call' ? 'attempted recursive call to ourselves' : 'no healthy upstream';
  const whose = service === undefined ? '' : `${serviceKey(service)}: `;
  return {
    kind: 'refuse',
    reason,
    message: `${what}: ${formatHostPort(destination)} (${whose}${why})`,
    ...and(service),
  };
}

function and(service: Service | undefined): { readonly service?: Service } {
  return service === undefined ? {} : { service };
}
