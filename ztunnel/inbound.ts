import type { Socket } from 'node:net';
import { formatHostPort, type HostPort } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import { type CallerClaim, decideCaller } from './caller.ts';
import {
  type CarriedRecord,
  type ConnectionFacts,
  connectFailure,
  failedRecord,
} from './connection-record.ts';
import { denial, type LiveConnection, type Opening } from './connections.ts';
import { CONNECT_TIMEOUT_MS, type DataPath, type ServedPod } from './data-path.ts';
import { dialled, GIVEN_UP } from './dial.ts';
import type { CarriedConnection } from './hand-over/carried.ts';
import { attachSocket } from './hbone/attach-socket.ts';
import { parseAuthority } from './hbone/authority.ts';
import {
  CONNECTION_ID_HEADER,
  fieldOf,
  formatBaggage,
  parseConnectionId,
  parseForwardedClient,
  RESUME_HEADER,
} from './hbone/headers.ts';
import type { Field } from './hbone/hpack-tables.ts';
import type { Leg } from './hbone/leg.ts';
import type { ServerSession } from './hbone/server.ts';
import { SocketLeg } from './hbone/socket-leg.ts';
import type { TunnelStream } from './hbone/stream.ts';
import { earlyFacts, inboundFacts } from './inbound-record.ts';
import { decideInboundTarget, type InboundTarget } from './inbound-target.ts';
import { authorizeNow, authorizeWhenKnown } from './permission.ts';
import type { InboundConnection, Verdict } from './policy/verdict.ts';
import { proxyHeader } from './proxy-protocol.ts';
import { holdInbound, isOfRestart } from './resume/inbound-tunnel.ts';

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
  const resumed = fieldOf(fields, RESUME_HEADER);
  if (resumed === undefined) await connect({ ...call, claim }, target);
  else await takeUp({ ...call, claim }, target, parseConnectionId(resumed) ?? '');
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
  const { path, pod } = call;
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
    join(call, target, live, leg);
  } catch (error) {
    answer(call, '503');
    live.fail(connectFailure(error));
  }
}

/** The application is there: answers, and carries. */
function join(call: KnownCall, target: Target, live: LiveConnection, leg: Leg): void {
  const { path, pod, session, stream } = call;
  const id = parseConnectionId(fieldOf(call.fields, CONNECTION_ID_HEADER));
  if (!live.isOver) accept(call, id);
  live.carry(stream, leg);
  if (id === undefined) return;
  holdInbound({
    path,
    pod,
    live,
    id,
    session: session.connection,
    stream,
    claimant: claimantOf(call, target),
  });
}

/** Takes up a connection that another session has carried, as if it were a new one in all but the application's socket. */
async function takeUp(call: KnownCall, target: Target, id: string): Promise<void> {
  const { path, pod } = call;
  const answered = await path.handOver.claim(id, claimantOf(call, target));
  if (answered.kind === 'moved') {
    // Not looked at: it may be asked again, where the next ztunnel answers.
    call.stream.abort('REFUSED_STREAM');
    return;
  }
  const [socket] = answered.kind === 'claimed' ? answered.connection.sockets : [];
  if (answered.kind !== 'claimed' || socket === undefined) {
    answer(call, answered.kind === 'refused' ? '401' : '404');
    const error = `connection ${id} cannot be taken up: ${WHY_NOT_TAKEN_UP[answered.kind]}`;
    path.record(failedRecord(earlyFacts(call), { error, flags: '-' }));
    return;
  }
  if (call.stream.isOver) {
    // Its caller asks again, by another session.
    path.handOver.park(answered.connection);
    return;
  }
  await goOn(call, target, answered.connection, attachSocket(socket, pod.sockets));
  path.handOver.decided(id);
}

/** @param leg the application's end */
async function goOn(call: KnownCall, target: Target, carried: CarriedConnection, leg: Leg): Promise<void> {
  const { path, workload } = call;
  const giveUp = (): void => {
    answer(call, '503');
    leg.abort();
  };
  const live = open(call, target, giveUp, carried.record);
  const verdict = await authorizeWhenKnown(path, workload, connectionOf(call, target, call.claim));
  live.decided(verdict);
  if (live.isOver) return;
  if (verdict.kind === 'allow') {
    join(call, target, live, leg);
    if (isOfRestart(carried)) path.handOver.count('inbound-tunnel', 'handed_over');
    return;
  }
  answer(call, '401');
  leg.abort();
  live.fail(denial(verdict));
  path.handOver.count('inbound-tunnel', 'reset_denied');
}

const WHY_NOT_TAKEN_UP = {
  claimed: 'it has no socket',
  refused: "it is another caller's",
  absent: 'it did not come in time',
} as const;

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

/** Says the connection's ID back: it can be handed over. */
function accept({ session, stream, workload }: TunnelCall, id: string | undefined): void {
  const fields: Field[] = [
    [':status', '200'],
    ['baggage', formatBaggage(workload)],
  ];
  if (id !== undefined) fields.push([CONNECTION_ID_HEADER, id]);
  session.connection.respond(stream, fields, false);
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

/** @param carried what has been said of it already, if it goes on here */
function open(call: KnownCall, target: Target, giveUp: () => void, carried?: CarriedRecord): LiveConnection {
  const { path, pod, remote, claim, local } = call;
  const opening: Opening = {
    pod,
    facts: carried?.facts ?? factsOf(call, target),
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
  };
  return path.connections.open(opening, carried);
}

/** Who may ask for it again once its session is gone: the same caller by the same peer, for the same application. */
function claimantOf({ pod, session, claim, remote }: KnownCall, { address }: Target): string {
  const [peer, caller] = [formatIdentity(session.peer), formatIdentity(claim.identity)];
  return [peer, remote.ip, caller, pod.info.uid, formatHostPort(address)].join(' ');
}

function factsOf(call: KnownCall, target: Target): ConnectionFacts {
  const { claim } = call;
  const waypoint = claim.kind === 'via-waypoint' ? { waypoint: claim.waypoint } : {};
  return inboundFacts(call, target, { identity: claim.identity, ...waypoint });
}

/** The address of an authority that is one. */
function addressIn(authority: string): HostPort | undefined {
  const parsed = parseAuthority(authority);
  return parsed?.kind === 'address' ? parsed.address : undefined;
}
