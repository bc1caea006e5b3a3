import type { Socket } from 'node:net';
import { familyOf, formatHostPort, type HostPort } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import { type ConnectionFacts, type Failure, failedRecord } from './connection-record.ts';
import type { LiveConnection } from './connections.ts';
import {
  CONFIGURATION_WAIT_MS,
  CONNECT_TIMEOUT_MS,
  type DataPath,
  destinationOf,
  remoteOf,
  type ServedPod,
  workloadOf,
} from './data-path.ts';
import { dialled, GIVEN_UP } from './dial.ts';
import { HboneError } from './hbone/error.ts';
import { fieldOf, newConnectionId } from './hbone/headers.ts';
import { SocketLeg } from './hbone/socket-leg.ts';
import type { TunnelStream } from './hbone/stream.ts';
import { identityOf } from './identity-of.ts';
import {
  completeNextHop,
  decideNextHop,
  type NextHop,
  type PassthroughHop,
  type RefusedHop,
  type SameNodeHop,
  type TunnelHop,
} from './next-hop.ts';
import {
  describeStatus,
  failureOf,
  gone,
  passthroughFacts,
  refusedFacts,
  tunnelFacts,
} from './outbound-record.ts';
import { describeService } from './peers.ts';
import { holdOutbound, outboundTunnel } from './resume/outbound-tunnel.ts';
import { carryOnNode } from './same-node.ts';
import { connectFields } from './tunnel-headers.ts';
import { withoutSvid } from './worker-svids.ts';

/** A captured connection, and who makes it. */
interface Call {
  readonly path: DataPath;
  readonly pod: ServedPod;
  /** The application's socket: the downstream end. */
  readonly socket: Socket;
  readonly leg: SocketLeg;
  readonly client: HostPort;
  readonly destination: HostPort;
  readonly source: Workload;
}

/**
 * Serves a connection that an application of the pod has made: finds out where to, decides, and carries it there. Whatever
 * goes wrong, the application sees a reset. Never rejects.
 */
export async function serveOutbound(path: DataPath, pod: ServedPod, socket: Socket): Promise<void> {
  const leg = new SocketLeg(socket);
  const remote = remoteOf(socket);
  const destination = destinationOf(pod, socket);
  if (remote === undefined || destination === undefined) return leg.abort();
  const source = await knownSource(path, pod);
  if (source === undefined) {
    const error = 'the workload, or what it may reach, is not known yet';
    turnAway({ path, leg, client: remote, destination }, { error, flags: '-' });
    return;
  }
  const client = clientOf(source, remote);
  const call: Call = { path, pod, socket, leg, client, destination, source };
  await follow(call, await decide(call));
}

/**
 * The application's end as it would be without capture: whoever has bound its socket to a port alone starts at a loopback address
 * when programs in the kernel lead it here.
 */
function clientOf({ addresses }: Workload, remote: HostPort): HostPort {
  if (!remote.ip.startsWith('127.') || addresses.includes(remote.ip)) return remote;
  const ip = addresses.find((each) => familyOf(each) === 4);
  return ip === undefined ? remote : { ip, port: remote.port };
}

/** The source, once the addresses of the mesh are known: before that, mesh traffic would leave in plain text. */
async function knownSource(path: DataPath, pod: ServedPod): Promise<Workload | undefined> {
  const isSynced = await path.waits.until(
    (tables) => tables.synced('addresses') || undefined,
    CONFIGURATION_WAIT_MS,
  );
  return isSynced && (await workloadOf(path, pod));
}

async function decide(
  { path, source, client, destination }: Call,
  exclude: ReadonlySet<string> = NONE,
): Promise<NextHop> {
  const hop = decideNextHop({
    tables: path.tables,
    source,
    sourceIp: client.ip,
    destination,
    network: path.config.network,
    random: Math.random,
    exclude,
    servesPod: (workload, ip) => path.pods.find(workload, ip) !== undefined,
  });
  if (hop.kind !== 'resolve') return hop;
  return completeNextHop(hop, await path.resolveHostname(hop.hostname), Math.random);
}

async function follow(call: Call, hop: NextHop): Promise<void> {
  switch (hop.kind) {
    case 'tunnel':
    case 'same-node':
      return await carrySomewhere(call, hop);
    case 'passthrough':
      return await passThrough(call, hop);
    case 'refuse':
      return refuse(call, hop);
    case 'resolve':
      throw new TypeError('a hostname has been resolved to another one');
  }
}

/**
 * Carries it to the hop or, where nobody listens there, to another endpoint of what was addressed: it may have gone a moment
 * ago, and nothing has been sent yet.
 */
async function carrySomewhere(call: Call, first: TunnelHop | SameNodeHop): Promise<void> {
  const tried = new Set<string>();
  let hop: NextHop = first;
  while (isCarried(hop) && tried.size < MOST_TRIES && !tried.has(hop.destinationWorkload.uid)) {
    tried.add(hop.destinationWorkload.uid);
    const end = hop.kind === 'tunnel' ? await tunnel(call, hop) : await carryOnNode(call, hop);
    if (end === 'over') return;
    if (call.socket.destroyed) return;
    hop = await decide(call, tried);
  }
  call.leg.abort();
}

function isCarried(hop: NextHop): hop is TunnelHop | SameNodeHop {
  return hop.kind === 'tunnel' || hop.kind === 'same-node';
}

/** Endpoints that are tried for one connection. */
const MOST_TRIES = 3;
const NONE: ReadonlySet<string> = new Set();

/** `unreachable`: nothing was sent, and the application waits still. */
async function tunnel(call: Call, hop: TunnelHop): Promise<'over' | 'unreachable'> {
  const { path, pod, socket, leg, client, source } = call;
  const connectionId = newConnectionId();
  let stream: TunnelStream | undefined;
  const live = open(call, tunnelFacts(call, hop, connectionId), 'HBONE', () => {
    leg.abort();
    stream?.abort();
  });
  // Bytes may come meanwhile, and even an end; but when the application has gone, so has the reason for the tunnel.
  const onGone = (): void => stream?.abort();
  socket.once('close', onGone);
  try {
    const svid = await path.svids.until(identityOf(source), CONFIGURATION_WAIT_MS);
    if (svid === undefined)
      throw new HboneError(withoutSvid(identityOf(source), 'source'), { code: 'NO_IDENTITY' });
    const { authority, service, expected } = hop;
    const fields = connectFields({ authority, source, client, service, connectionId });
    const target = { svid, expected, caller: pod.id, hop: hop.hop, sockets: pod.sockets };
    const answered = await path.pool.open(target, fields, (opened) => {
      stream = opened;
      if (socket.destroyed) opened.abort();
    });
    socket.off('close', onGone);
    const status = fieldOf(answered.fields, ':status') ?? 'none';
    if (status === '200') {
      live.carry(leg, answered.stream);
      holdOutbound({ path, pod, live, id: connectionId, tunnel: outboundTunnel(client, hop) }, answered);
    } else {
      answered.stream.abort('CANCEL');
      throw new HboneError(`http status: ${describeStatus(status)}`, { code: 'BAD_STATUS' });
    }
  } catch (error) {
    socket.off('close', onGone);
    live.fail(socket.destroyed ? gone(error) : failureOf(error));
    if (isUnreachable(error)) return 'unreachable';
    leg.abort();
  }
  return 'over';
}

function isUnreachable(error: unknown): boolean {
  return error instanceof HboneError && (error.code === 'CONNECT_FAILED' || error.code === 'SESSION_LOST');
}

async function passThrough(call: Call, hop: PassthroughHop): Promise<void> {
  const { pod, leg } = call;
  let upstream: Socket | undefined;
  const live = open(call, passthroughFacts(call, hop), 'TCP', () => {
    leg.abort();
    upstream?.destroy(GIVEN_UP);
  });
  const dial = (): Socket => {
    upstream = pod.sockets.dialOutside(hop.to);
    return upstream;
  };
  try {
    live.carry(leg, new SocketLeg(await dialled(dial, CONNECT_TIMEOUT_MS, pod.dials.outbound)));
  } catch (error) {
    leg.abort();
    live.fail(failureOf(error));
  }
}

function refuse(call: Call, { message, service, reason }: RefusedHop): void {
  turnAway(call, { error: message, flags: '-', reason }, service && describeService(service));
}

/** Resets the application's connection before it is one. */
function turnAway(
  { path, leg, client, destination }: Pick<Call, 'path' | 'leg' | 'client' | 'destination'>,
  failure: Failure,
  service?: ConnectionFacts['service'],
): void {
  leg.abort();
  path.record(failedRecord(refusedFacts({ client, destination }, service), failure));
}

function open(
  { path, pod, client, source }: Call,
  facts: ConnectionFacts,
  protocol: 'HBONE' | 'TCP',
  giveUp: () => void,
): LiveConnection {
  const info = {
    podUid: pod.info.uid,
    direction: 'outbound' as const,
    source: formatHostPort(client),
    destination: facts.hboneAddress ?? facts.destination.address,
    identity: formatIdentity(identityOf(source)),
    protocol,
  };
  const carriage = { kind: 'passthrough', podUid: pod.info.uid } as const;
  return path.connections.open({ pod, facts, info, giveUp, ...(protocol === 'TCP' && { carriage }) });
}
