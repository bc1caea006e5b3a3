import type { Socket } from 'node:net';
import { formatHostPort, type HostPort } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity, identitiesEqual } from '#certs/identity.ts';
import type { Peer } from './access-log.ts';
import { type CallerClaim, decideCaller } from './caller.ts';
import { type ConnectionFacts, connectFailure, failedRecord } from './connection-record.ts';
import { denial, type LiveConnection } from './connections.ts';
import { CONNECT_TIMEOUT_MS, type DataPath, type ServedPod, unknownPeer } from './data-path.ts';
import { dialled, GIVEN_UP } from './dial.ts';
import { parseAuthority } from './hbone/authority.ts';
import {
  fieldOf,
  formatBaggage,
  parseBaggage,
  parseConnectionId,
  parseForwardedClient,
} from './hbone/headers.ts';
import type { Field } from './hbone/hpack-tables.ts';
import type { ServerSession } from './hbone/server.ts';
import { SocketLeg } from './hbone/socket-leg.ts';
import type { TunnelStream } from './hbone/stream.ts';
import { identityOf } from './identity-of.ts';
import { decideInboundTarget, type InboundTarget } from './inbound-target.ts';
import { describeBaggage, describeService, describeWorkload } from './peers.ts';
import { authorizeNow, authorizeWhenKnown } from './permission.ts';
import type { InboundConnection, Verdict } from './policy/verdict.ts';
import { proxyHeader } from './proxy-protocol.ts';
import { CONNECTION_ID_HEADER } from './tunnel-headers.ts';

/** A request that came in over HBONE, and over which session. */
export interface TunnelCall {
  readonly path: DataPath;
  readonly pod: ServedPod;
  /** The workload of the pod. */
  readonly workload: Workload;
  readonly session: ServerSession;
  readonly stream: TunnelStream;
  readonly fields: readonly Field[];
  /** The caller's end and ours of the TCP connection. */
  readonly remote: HostPort;
  readonly local: HostPort;
}

type Target = InboundTarget & { readonly kind: 'target' };

/**
 * Serves a CONNECT: checks what it is for and who asks, connects to the application with the caller's address, answers
 * 200, and carries. Fact sheet ambient-wire.md, 1.6. Never rejects.
 */
export async function serveInbound(call: TunnelCall): Promise<void> {
  const { path, workload, fields, local } = call;
  const { tables, config } = path;
  const target = decideInboundTarget({
    tables,
    workload,
    fields,
    localIp: local.ip,
    network: config.network,
  });
  if (target.kind === 'refused') {
    answer(call, target.status);
    path.record(failedRecord(earlyFacts(call), { error: target.error, flags: '-' }));
    return;
  }
  const claim = claimOf(call, workload);
  if (claim.kind === 'refused') {
    answer(call, '400');
    path.record(failedRecord(earlyFacts(call), { error: claim.reason, flags: '-' }));
    return;
  }
  await connect({ ...call, claim }, target);
}

function claimOf({ path, session, remote, fields }: TunnelCall, workload: Workload): CallerClaim {
  const { network } = path.config;
  return decideCaller({
    tables: path.tables,
    workload,
    peer: session.peer,
    peerIp: remote.ip,
    network,
    fields,
  });
}

type Claim = Exclude<CallerClaim, { readonly kind: 'refused' }>;

/** A call of which it is known who makes it. */
interface KnownCall extends TunnelCall {
  readonly claim: Claim;
}

async function connect(call: KnownCall, target: Target): Promise<void> {
  const { path, pod, stream } = call;
  let application: Socket | undefined;
  const live = open(call, target, () => {
    answer(call, '503');
    application?.destroy(GIVEN_UP);
  });
  const verdict = await authorizeWhenKnown(path, call.workload, connectionOf(call, target, call.claim));
  live.decided(verdict);
  if (live.isOver) return;
  if (verdict.kind === 'deny') {
    answer(call, '401');
    live.fail(denial(verdict));
    return;
  }
  try {
    const dial = (): Socket => {
      application = pod.sockets.dial(target.address, callerFor(call, target));
      return application;
    };
    const leg = new SocketLeg(await dialled(dial, CONNECT_TIMEOUT_MS, pod.dials.inbound));
    if (target.wantsProxyProtocol) leg.write(introduction(call, target));
    if (!live.isOver) accept(call);
    live.carry(stream, leg);
  } catch (error) {
    answer(call, '503');
    live.fail(connectFailure(error));
  }
}

/**
 * The application sees the caller's address, unless it is its own, or a proxy that is told in another way. The port is the
 * one that the caller's application has, as its ztunnel says; many connections share the tunnel's.
 */
function callerFor(
  { path, fields, remote }: TunnelCall,
  { address, wantsProxyProtocol }: Target,
): HostPort | undefined {
  if (!path.config.originalSource || remote.ip === address.ip || wantsProxyProtocol) return undefined;
  const client = parseForwardedClient(fieldOf(fields, 'forwarded') ?? '');
  return client?.ip === remote.ip ? client : { ip: remote.ip, port: 0 };
}

function introduction({ remote, local, session }: TunnelCall, { authority, address }: Target): Buffer {
  const asked = addressIn(authority) ?? { ip: local.ip, port: address.port };
  return proxyHeader(remote, asked, formatIdentity(session.peer));
}

function accept({ session, stream, workload }: TunnelCall): void {
  session.connection.respond(
    stream,
    [
      [':status', '200'],
      ['baggage', formatBaggage(workload)],
    ],
    false,
  );
}

function answer({ session, stream }: TunnelCall, status: string): void {
  session.connection.respond(stream, [[':status', status]], true);
}

function connectionOf({ remote, local }: TunnelCall, { address }: Target, claim: Claim): InboundConnection {
  return {
    sourceIdentity: claim.identity,
    ...(claim.kind === 'via-waypoint' && { waypointIdentity: claim.waypoint }),
    sourceIp: remote.ip,
    destinationIp: local.ip,
    destinationPort: address.port,
  };
}

/** Looked at again when what it was let in by has changed: the waypoint may no longer be one. */
function authorizeAgain(call: KnownCall, target: Target): Verdict {
  const { path, workload, session } = call;
  const current = path.tables.workloadByUid(workload.uid) ?? workload;
  const claim = claimOf(call, current);
  const trusted: Claim = claim.kind === 'refused' ? { kind: 'peer', identity: session.peer } : claim;
  return authorizeNow(path, workload, connectionOf(call, target, trusted));
}

function open(call: KnownCall, target: Target, giveUp: () => void): LiveConnection {
  const { path, pod, remote, claim, local } = call;
  return path.connections.open({
    pod,
    facts: factsOf(call, target),
    info: {
      podUid: pod.info.uid,
      direction: 'inbound',
      source: formatHostPort(remote),
      destination: formatHostPort({ ip: local.ip, port: target.address.port }),
      identity: formatIdentity(claim.identity),
      protocol: 'HBONE',
    },
    permission: {
      workloadUid: call.workload.uid,
      verdict: () => authorizeAgain(call, target),
    },
    giveUp,
  });
}

function earlyFacts({ remote, local }: TunnelCall): ConnectionFacts {
  return {
    direction: 'inbound',
    source: unknownPeer(remote),
    destination: unknownPeer(local),
    security: 'mutual_tls',
  };
}

function factsOf(call: KnownCall, { authority, service }: Target): ConnectionFacts {
  const { workload, fields, local, claim } = call;
  const connectionId = parseConnectionId(fieldOf(fields, CONNECTION_ID_HEADER));
  return {
    direction: 'inbound',
    source: sourcePeer(call),
    ...(claim.kind === 'via-waypoint' && { waypoint: formatIdentity(claim.waypoint) }),
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
function sourcePeer({ path, claim, remote, fields }: KnownCall): Peer {
  const peer = claim.identity;
  const proven = { address: formatHostPort(remote), identity: formatIdentity(peer) };
  const atAddress = path.tables.workloadByIp(path.config.network, remote.ip);
  if (atAddress !== undefined && identitiesEqual(identityOf(atAddress), peer)) {
    return { ...proven, workload: describeWorkload(atAddress) };
  }
  const baggage = parseBaggage(fieldOf(fields, 'baggage') ?? '');
  if (baggage.namespace !== peer.namespace) return proven;
  return { ...proven, workload: describeBaggage(baggage) };
}

/** The address of an authority that is one. */
function addressIn(authority: string): HostPort | undefined {
  const parsed = parseAuthority(authority);
  return parsed?.kind === 'address' ? parsed.address : undefined;
}
