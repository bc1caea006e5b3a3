import type { Ip } from '#api/address.ts';
import type { Reason } from '#bpf/layout.ts';

/**
 * How a pod's traffic gets into its ztunnel. Two implementations are there: eBPF (`ebpf.ts`) and packet rules
 * (`nftables.ts`); both are installed and removed by the node agent, so that any ztunnel finds them.
 */
export interface Capture {
  readonly method: 'nftables' | 'ebpf';
  /**
   * Makes it so that new connections of that scope are captured, and no others: at first, again, or after another scope
   * (also of an agent that crashed). Connections that are established, captured or not, go on as they are, and whatever
   * the ztunnel opens towards the application finds its way back. Either all of it is done or nothing has changed.
   * @throws CaptureError
   */
  readonly apply: (pod: CapturedPod, scope: CaptureScope) => Promise<void>;
  /** The scope in force, as another agent may have left it; undefined when nothing is captured, or there is no pod. */
  readonly scopeOf: (pod: CapturedPod) => Promise<CaptureScope | undefined>;
  /** Connections that the ztunnel carries because they were captured, and that would break if it let go of the pod now. */
  readonly countCaptured: (pod: CapturedPod) => Promise<number>;
  /**
   * What was refused since the pod came into the mesh, by reason: packets and calls, so that a SYN that is tried again counts
   * again. What never happened may be missing.
   */
  readonly counters: (pod: CapturedPod) => Promise<ReadonlyMap<Reason, number>>;
  /** Removes everything, once nothing captured is left. A pod that is gone is no error. */
  readonly remove: (pod: CapturedPod) => Promise<void>;
}

/** Capture of which each pod has its own method. */
export interface PodCapture extends Omit<Capture, 'method'> {
  /** How a pod is captured, and where that is not by eBPF, why. */
  readonly methodOf: (pod: CapturedPod) => CaptureMethod;
}

export interface CaptureMethod {
  readonly method: Capture['method'];
  readonly reason?: string;
}

/**
 * Which new connections are captured. `outbound` alone is a step on the way in and out: the pod takes tunnels already or
 * still, and plain connections reach it directly until, or as soon as, every peer knows better.
 */
export type CaptureScope = 'both' | 'outbound' | 'nothing';

/** Capture could not be changed; the message names the pod, what went wrong, and the remedy. */
export class CaptureError extends Error {
  override readonly name = 'CaptureError';
}

/** A pod to capture. */
export interface CapturedPod {
  readonly uid: string;
  /** `NS/NAME`, for messages; absent: the uid stands there. */
  readonly name?: string;
  /** Path of its network namespace, as `ip netns` lists it under /run/netns. */
  readonly netnsPath: string;
  /** UDP other than DNS: passes, or is refused and counted. */
  readonly udp: 'allow' | 'refuse';
  /**
   * `strict`: closed when its ztunnel is gone, and held to the mesh whatever it tries. `permissive`: open then; what goes
   * round the mesh is counted. Packet rules are always closed then, and can tell nobody apart.
   */
  readonly mode: 'strict' | 'permissive';
  /** Policies deny every caller without an identity. The kernel may then refuse it; the ztunnel does in any case. */
  readonly refusesPlaintext: boolean;
  /** Its own addresses: at most one of each family is used. */
  readonly addresses: readonly Ip[];
  /** Who may reach which of its ports past the mesh, to ask whether it is well. */
  readonly probes: readonly Probe[];
}

/** A pod in a message. */
export function nameOfPod({ uid, name }: Pick<CapturedPod, 'uid' | 'name'>): string {
  return name ?? uid;
}

/** One address that may reach one port of a pod past the mesh. */
export interface Probe {
  readonly from: Ip;
  readonly port: number;
}

/** Ports and marks, as ambient has them: fact sheet ambient-wire.md, sections 2.1 and 6.3. */
export const PORT_OUTBOUND: 15001 = 15001;
export const PORT_INBOUND_PLAINTEXT: 15006 = 15006;
export const PORT_HBONE: 15008 = 15008;
export const PORT_DNS: 15053 = 15053;
/** SO_MARK of every socket of a ztunnel. */
export const PACKET_MARK: 0x539 = 0x539;
/** Mark of connections that the ztunnel opened towards the application, and of the application's replies. */
export const CONNECTION_MARK: 0x111 = 0x111;
/** What the probes of a node's own kubelet come from in ambient. */
export const PROBE_IPV4: '169.254.7.127' = '169.254.7.127';
export const PROBE_IPV6: 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff' =
  'fd16:9254:7127:1337:ffff:ffff:ffff:ffff';
