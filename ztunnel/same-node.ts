import type { Socket } from 'node:net';
import { formatHostPort, type HostPort } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import { hasCode } from './capture/native.ts';
import { type ConnectionFacts, connectFailure, type Failure, failedRecord } from './connection-record.ts';
import type { LiveConnection } from './connections.ts';
import { CONNECT_TIMEOUT_MS, type DataPath, type ServedPod } from './data-path.ts';
import { DialError, dialled, GIVEN_UP } from './dial.ts';
import { SocketLeg } from './hbone/socket-leg.ts';
import { identityOf } from './identity-of.ts';
import { decideApplication, type InboundTarget } from './inbound-target.ts';
import { type KernelPair, spliceInKernel } from './kernel-leg.ts';
import type { SameNodeHop } from './next-hop.ts';
import { describeService, describeWorkload } from './peers.ts';
import type { InboundConnection } from './policy/verdict.ts';
import { proxyHeader } from './proxy-protocol.ts';
import { admit, type NodePair, pairPermission, proveIdentities } from './same-node-admission.ts';

/** A captured connection whose destination is a pod of this ztunnel's, too. */
export interface SameNodeCall {
  readonly path: DataPath;
  /** Whose listener has accepted it: that is what the caller's identity comes from. */
  readonly pod: ServedPod;
  /** The application's socket. */
  readonly socket: Socket;
  readonly leg: SocketLeg;
  readonly client: HostPort;
  readonly source: Workload;
}

type Target = InboundTarget & { readonly kind: 'target' };

/** All that both ends of a tunnel would know. */
interface Handover extends SameNodeCall, NodePair {
  readonly hop: SameNodeHop;
  readonly target: Target;
}

/**
 * Carries a connection to the application in another pod of this node: what a tunnel's two ends would check, one after the
 * other, then the bytes from one socket to the other. Whatever goes wrong, the application sees a reset. Never rejects.
 * `unreachable`: the pod is gone, nothing was sent, and the application waits still.
 */
export async function carryOnNode(call: SameNodeCall, hop: SameNodeHop): Promise<'over' | 'unreachable'> {
  const { path, leg } = call;
  const destinationPod = path.pods.find(hop.destinationWorkload, hop.to.ip);
  if (destinationPod === undefined) return 'unreachable';
  const target = targetOf(path, hop);
  const ids = {
    sourceId: formatIdentity(identityOf(call.source)),
    destinationId: formatIdentity(identityOf(hop.destinationWorkload)),
  };
  if (target.kind === 'refused') {
    leg.abort();
    path.record(failedRecord(factsOf({ ...call, ...ids, hop }), { error: target.error, flags: '-' }));
    return 'over';
  }
  const connection: InboundConnection = {
    sourceIdentity: identityOf(call.source),
    sourceIp: hop.sourceIp,
    destinationIp: hop.to.ip,
    destinationPort: target.address.port,
  };
  const { destinationWorkload, expected } = hop;
  const pair = { ...ids, destinationPod, destinationWorkload, expected, connection };
  return await handOver({ ...call, ...pair, hop, target });
}

function targetOf({ tables }: DataPath, { to, destinationWorkload, service }: SameNodeHop): InboundTarget {
  return decideApplication(
    { tables, workload: destinationWorkload, localIp: to.ip },
    { authority: formatHostPort(to), port: to.port, named: service?.hostname.toLowerCase() },
  );
}

async function handOver(call: Handover): Promise<'over' | 'unreachable'> {
  const { socket, leg, target, destinationPod } = call;
  let application: Socket | undefined;
  const giveUp = (): void => {
    application?.destroy(GIVEN_UP);
  };
  const live = open(call, () => {
    leg.abort();
    giveUp();
  });
  // Bytes may come meanwhile, and even an end; but when the caller has gone, so has the reason to connect.
  const onGone = (): void => {
    live.fail(GONE);
    giveUp();
  };
  socket.once('close', onGone);
  if (socket.destroyed) onGone();
  try {
    const failure = (await proveIdentities(call)) ?? (await admit(call, live));
    if (live.isOver) return 'over';
    if (failure !== undefined) {
      leg.abort();
      live.fail(failure);
      return 'over';
    }
    const dial = (): Socket => {
      application = destinationPod.sockets.dial(target.address, callerFor(call));
      return application;
    };
    const upstream = new SocketLeg(await dialled(dial, CONNECT_TIMEOUT_MS, destinationPod.dials.inbound));
    if (target.wantsProxyProtocol) upstream.write(introduction(call));
    const ends = application && !live.isOver ? endsOf(call, upstream, application) : undefined;
    live.carry(ends?.downstream ?? leg, ends?.upstream ?? upstream);
  } catch (error) {
    const isOver = live.isOver;
    live.fail(connectFailure(error));
    if (isUnreachable(error) && !isOver) return 'unreachable';
    leg.abort();
  } finally {
    socket.off('close', onGone);
  }
  return 'over';
}

const GONE: Failure = { error: 'the application has closed its connection', flags: '-' };

/** With the kernel's help, if both pods have asked for it and programs in the kernel have their connections. */
function endsOf(call: Handover, upstream: SocketLeg, application: Socket): KernelPair | undefined {
  const { path, pod, socket, leg, source, hop, destinationPod, target } = call;
  const haveAsked = source.splice === true && hop.destinationWorkload.splice === true;
  if (!haveAsked || target.wantsProxyProtocol) return undefined;
  const [from, to] = [pod.sockets, destinationPod.sockets];
  if (from.isInKernel?.() !== true || to.isInKernel?.() !== true) return undefined;
  if (from.cookie === undefined || to.cookie === undefined) return undefined;
  return spliceInKernel(
    path.kernelSplice,
    { socket, leg, cookie: from.cookie },
    { socket: application, leg: upstream, cookie: to.cookie },
  );
}

/** The application sees the caller's address, unless it is its own, or a proxy that is told in another way. */
function callerFor({ path, hop, client, target }: Handover): HostPort | undefined {
  if (!path.config.originalSource || hop.sourceIp === target.address.ip || target.wantsProxyProtocol) {
    return undefined;
  }
  return callerOf(hop, client);
}

function callerOf({ sourceIp }: SameNodeHop, client: HostPort): HostPort {
  return sourceIp === client.ip ? client : { ip: sourceIp, port: 0 };
}

function introduction({ hop, client, sourceId }: Handover): Buffer {
  return proxyHeader(callerOf(hop, client), hop.to, sourceId);
}

function open(call: Handover, giveUp: () => void): LiveConnection {
  const { path, pod, destinationPod, client, hop, connection, sourceId } = call;
  return path.connections.open({
    pod,
    otherPod: destinationPod,
    facts: factsOf(call),
    info: {
      podUid: pod.info.uid,
      destinationPodUid: destinationPod.info.uid,
      direction: 'outbound',
      source: formatHostPort(client),
      destination: formatHostPort(hop.to),
      identity: sourceId,
      protocol: 'SAME_NODE',
    },
    permission: pairPermission(call),
    giveUp,
    carriage: {
      kind: 'same-node',
      podUid: pod.info.uid,
      otherPodUid: destinationPod.info.uid,
      ends: {
        sourceIp: connection.sourceIp,
        destinationIp: connection.destinationIp,
        destinationPort: connection.destinationPort,
        expected: hop.expected.map(formatIdentity),
      },
    },
  });
}

function factsOf(
  call: SameNodeCall & {
    readonly hop: SameNodeHop;
    readonly target?: Target;
    readonly sourceId: string;
    readonly destinationId: string;
  },
): ConnectionFacts {
  const { client, source, hop, target, sourceId, destinationId } = call;
  const implied = hop.service === undefined ? target?.service : undefined;
  return {
    direction: 'outbound',
    source: { address: formatHostPort(client), workload: describeWorkload(source), identity: sourceId },
    destination: {
      address: formatHostPort(hop.to),
      workload: describeWorkload(hop.destinationWorkload),
      identity: destinationId,
    },
    security: 'same_node',
    ...(hop.service && { service: describeService(hop.service) }),
    ...(implied && { impliedService: describeService(implied) }),
  };
}

/** The pod's network is being taken down: nobody listens there, as far as tunnels go. */
function isUnreachable(error: unknown): boolean {
  if (!(error instanceof DialError)) return false;
  return ['ENETUNREACH', 'EHOSTUNREACH', 'ENETDOWN'].some((code) => hasCode(error.cause, code));
}
