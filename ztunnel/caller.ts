import type { Ip } from '#api/address.ts';
import type { GatewayAddress, Workload } from '#api/workload.ts';
import { formatIdentity, type Identity, identitiesEqual, parseIdentity } from '#certs/identity.ts';
import { CALLER_HEADER } from './hbone/headers.ts';
import type { Field } from './hbone/hpack-tables.ts';
import { identityOf } from './identity-of.ts';
import { findGateway, isInstanceOf } from './tables/gateway.ts';
import type { Tables } from './tables/tables.ts';

/** Who calls over an HBONE session, and what has been made of what the peer says of it. */
export type CallerClaim =
  /** The TLS peer calls for itself. */
  | { readonly kind: 'peer'; readonly identity: Identity }
  /** A waypoint of the destination calls for another. */
  | { readonly kind: 'via-waypoint'; readonly identity: Identity; readonly waypoint: Identity }
  /** A waypoint of the destination says what is no identity of this trust domain: nobody is let in under it. */
  | { readonly kind: 'refused'; readonly reason: string };

/** An HBONE request, as far as it says who calls. */
export interface CallerRequest {
  readonly tables: Tables;
  /** The destination. */
  readonly workload: Workload;
  /** What the TLS peer's certificate says, and where it is. */
  readonly peer: Identity;
  readonly peerIp: Ip;
  readonly network: string;
  readonly fields: readonly Field[];
}

/**
 * Decides whose identity policies see. The header with the caller counts only from a peer whose certificate names a waypoint
 * that is bound to the destination (or to a service of it); from anybody else it is as if it were not there.
 */
export function decideCaller(request: CallerRequest): CallerClaim {
  const { peer, fields } = request;
  const claims = fields.filter(([name]) => name === CALLER_HEADER);
  if (claims.length === 0 || !isWaypointOf(request)) return { kind: 'peer', identity: peer };
  const [claim] = claims;
  const identity = claims.length === 1 && claim !== undefined ? parsed(claim[1]) : undefined;
  if (identity === undefined) return refused(peer, 'no single SPIFFE ID');
  if (identity.trustDomain !== peer.trustDomain) return refused(peer, 'an identity of another trust domain');
  return identitiesEqual(identity, peer)
    ? { kind: 'peer', identity: peer }
    : { kind: 'via-waypoint', identity, waypoint: peer };
}

/**
 * Whether the peer runs under the identity of a waypoint in front of the workload: of the instance at its address (ready or
 * draining), or else of any that is ready, as addresses may be translated on the way.
 */
function isWaypointOf({ tables, workload, peer, peerIp, network }: CallerRequest): boolean {
  const references = waypointsOf(tables, workload);
  if (references.length === 0) return false;
  const atAddress = tables.workloadByIp(network, peerIp);
  const isIt = (instance: Workload): boolean => identitiesEqual(identityOf(instance), peer);
  return references.some((reference) => {
    if (atAddress !== undefined && isIt(atAddress) && isInstanceOf(tables, reference, atAddress)) return true;
    return readyInstances(tables, reference, workload.namespace).some(isIt);
  });
}

function readyInstances(tables: Tables, reference: GatewayAddress, namespace: string): readonly Workload[] {
  const gateway = findGateway(tables, reference, namespace);
  if (gateway === undefined) return [];
  return gateway.kind === 'workload'
    ? [gateway.workload]
    : tables.endpointsOf(gateway.service).map((endpoint) => endpoint.workload);
}

/** Only services of the workload's namespace count: one of another that lists it must not speak for its callers. */
function waypointsOf(tables: Tables, workload: Workload): readonly GatewayAddress[] {
  const references = [...workload.services.keys()].flatMap((key) => {
    const service = tables.serviceByKey(key);
    if (service === undefined || service.namespace !== workload.namespace) return [];
    const canaries = service.weightedWaypoints.map(({ destination }) => destination);
    return service.waypoint === undefined ? canaries : [service.waypoint, ...canaries];
  });
  return workload.waypoint === undefined ? references : [workload.waypoint, ...references];
}

function parsed(text: string): Identity | undefined {
  try {
    return parseIdentity(text);
  } catch {
    return undefined;
  }
}

function refused(peer: Identity, what: string): CallerClaim {
  return {
    kind: 'refused',
    reason: `waypoint ${formatIdentity(peer)} sent ${what} as ${CALLER_HEADER}`,
  };
}
