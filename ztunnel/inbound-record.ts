import { formatHostPort, type HostPort } from '#api/address.ts';
import type { Service } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity, type Identity, identitiesEqual } from '#certs/identity.ts';
import type { Peer } from './access-log.ts';
import type { ConnectionFacts } from './connection-record.ts';
import { type DataPath, unknownPeer } from './data-path.ts';
import { CONNECTION_ID_HEADER, fieldOf, parseBaggage, parseConnectionId } from './hbone/headers.ts';
import type { Field } from './hbone/hpack-tables.ts';
import { identityOf } from './identity-of.ts';
import { describeBaggage, describeService, describeWorkload } from './peers.ts';

/** What records of connections that came in by a tunnel say. */

/** A request that came in over HBONE: for whom, and between which ends of the TCP connection. */
export interface InboundEnds {
  readonly path: Pick<DataPath, 'tables' | 'config'>;
  readonly workload: Workload;
  readonly fields: readonly Field[];
  /** The caller's end and ours. */
  readonly remote: HostPort;
  readonly local: HostPort;
}

/** Of one that was refused before it was known what it is for. */
export function earlyFacts({ remote, local }: Pick<InboundEnds, 'remote' | 'local'>): ConnectionFacts {
  return {
    direction: 'inbound',
    source: unknownPeer(remote),
    destination: unknownPeer(local),
    security: 'mutual_tls',
  };
}

/** Of one of which it is known who asks, and for what. @param waypoint the one that speaks for the caller */
export function inboundFacts(
  call: InboundEnds,
  { authority, service }: { readonly authority: string; readonly service?: Service },
  { identity, waypoint }: { readonly identity: Identity; readonly waypoint?: Identity },
): ConnectionFacts {
  const { workload, fields, local } = call;
  const connectionId = parseConnectionId(fieldOf(fields, CONNECTION_ID_HEADER));
  return {
    direction: 'inbound',
    source: sourcePeer(call, identity),
    ...(waypoint !== undefined && { waypoint: formatIdentity(waypoint) }),
    destination: {
      address: formatHostPort(local),
      workload: describeWorkload(workload),
      identity: formatIdentity(identityOf(workload)),
    },
    hboneAddress: authority,
    security: 'mutual_tls',
    ...(service && { service: describeService(service) }),
    ...(connectionId && { connectionId }),
  };
}

/** The caller: by its address, if who is there has proven to be it; else by what it says of itself, in its own namespace. */
function sourcePeer({ path, remote, fields }: InboundEnds, peer: Identity): Peer {
  const proven = { address: formatHostPort(remote), identity: formatIdentity(peer) };
  const atAddress = path.tables.workloadByIp(path.config.network, remote.ip);
  if (atAddress !== undefined && identitiesEqual(identityOf(atAddress), peer)) {
    return { ...proven, workload: describeWorkload(atAddress) };
  }
  const baggage = parseBaggage(fieldOf(fields, 'baggage') ?? '');
  if (baggage.namespace !== peer.namespace) return proven;
  return { ...proven, workload: describeBaggage(baggage) };
}
