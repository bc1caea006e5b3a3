import { formatHostPort, type HostPort } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import type { Peer, ResponseFlags } from './access-log.ts';
import { type ConnectionFacts, connectFailure, type Failure } from './connection-record.ts';
import { unknownPeer } from './data-path.ts';
import { HboneError, type HboneErrorCode } from './hbone/error.ts';
import { identityOf } from './identity-of.ts';
import type { PassthroughHop, TunnelHop } from './next-hop.ts';
import { describeService, describeWorkload } from './peers.ts';

/** What records of outbound connections say. */

/** Who makes a connection. */
export interface OutboundEnds {
  readonly client: HostPort;
  readonly source: Workload;
}

/** Of a connection that was reset before it was decided where it goes. */
export function refusedFacts(
  { client, destination }: { readonly client: HostPort; readonly destination: HostPort },
  service: ConnectionFacts['service'],
): ConnectionFacts {
  return {
    direction: 'outbound',
    source: unknownPeer(client),
    destination: unknownPeer(destination),
    security: 'unknown',
    ...(service && { service }),
  };
}

/** Of a connection through a tunnel. */
export function tunnelFacts(call: OutboundEnds, hop: TunnelHop, connectionId: string): ConnectionFacts {
  return {
    direction: 'outbound',
    source: { ...sourcePeer(call), identity: formatIdentity(identityOf(call.source)) },
    destination: {
      address: formatHostPort(hop.hop),
      workload: describeWorkload(hop.destinationWorkload),
      identity: formatIdentity(identityOf(hop.destinationWorkload)),
    },
    hboneAddress: hop.authority,
    security: 'mutual_tls',
    connectionId,
    ...(hop.service && { service: describeService(hop.service) }),
  };
}

/** Of a connection that leaves as it is. */
export function passthroughFacts(call: OutboundEnds, hop: PassthroughHop): ConnectionFacts {
  const { destinationWorkload, service } = hop;
  return {
    direction: 'outbound',
    source: sourcePeer(call),
    destination: {
      address: formatHostPort(hop.to),
      ...(destinationWorkload && { workload: describeWorkload(destinationWorkload) }),
    },
    security: 'unknown',
    ...(service && { service: describeService(service) }),
  };
}

function sourcePeer({ client, source }: OutboundEnds): Peer {
  return { address: formatHostPort(client), workload: describeWorkload(source) };
}

/** What answered a CONNECT, for people: `503 Service Unavailable`, as a stock ztunnel writes it. */
export function describeStatus(status: string): string {
  return STATUS_TEXTS.get(status) ?? status;
}

const STATUS_TEXTS: ReadonlyMap<string, string> = new Map([
  ['400', '400 Bad Request'],
  ['401', '401 Unauthorized'],
  ['403', '403 Forbidden'],
  ['404', '404 Not Found'],
  ['503', '503 Service Unavailable'],
]);

const FLAGS: Readonly<Record<HboneErrorCode, ResponseFlags>> = {
  CONNECT_FAILED: 'CONNECT',
  CONNECT_TIMEOUT: 'NETWORK_POLICY',
  TLS_FAILED: 'TLS_FAILURE',
  NO_IDENTITY: 'IDENTITY_ERROR',
  SESSION_LOST: 'H2_HANDSHAKE_FAILURE',
  STREAM_RESET: 'CONNECT',
  BAD_STATUS: 'CONNECT',
};

/** Why it could not be carried. */
export function failureOf(error: unknown): Failure {
  if (error instanceof HboneError) return { error: error.message, flags: FLAGS[error.code] };
  return connectFailure(error);
}

/** That the application did not wait for it. */
export function gone(error: unknown): Failure {
  const why = error instanceof Error ? error.message : String(error);
  return { error: `the application has closed its connection: ${why}`, flags: '-' };
}
