/**
 * How a pod's traffic gets into its ztunnel. Two implementations are meant: packet rules (`nftables.ts`) and eBPF; both
 * are installed and removed by the node agent, so that any ztunnel, also a stock one, finds them.
 */
export interface Capture {
  readonly method: 'nftables' | 'ebpf';
  /**
   * Makes it so that new connections of that scope are captured, and no others: at first, again, or after another scope
   * (also of an agent that crashed). Connections that are established, captured or not, go on as they are, and whatever
   * the ztunnel opens towards the application finds its way back.
   * @throws CaptureError
   */
  readonly apply: (pod: CapturedPod, scope: CaptureScope) => Promise<void>;
  /** The scope in force, as another agent may have left it; undefined when there are no rules, or no pod. */
  readonly scopeOf: (pod: CapturedPod) => Promise<CaptureScope | undefined>;
  /** Connections that would break if everything were removed now. */
  readonly countCaptured: (pod: CapturedPod) => Promise<number>;
  /** UDP packets that were refused since the capture was installed. */
  readonly countRefusedUdp: (pod: CapturedPod) => Promise<RefusedUdp>;
  /** Removes everything, once nothing captured is left. A pod that is gone is no error. */
  readonly remove: (pod: CapturedPod) => Promise<void>;
}

/**
 * Which new connections are captured. `outbound` alone is a step on the way in and out: the pod takes tunnels already or
 * still, and plain connections reach it directly until, or as soon as, every peer knows better.
 */
export type CaptureScope = 'both' | 'outbound' | 'nothing';

/** Packets, by direction as seen from the pod. */
export interface RefusedUdp {
  readonly inbound: number;
  readonly outbound: number;
}

/** Packet rules could not be changed; the message names the pod, what the tool said, and the remedy. */
export class CaptureError extends Error {
  override readonly name = 'CaptureError';
}

/** A pod to capture. */
export interface CapturedPod {
  readonly uid: string;
  /** Path of its network namespace, as `ip netns` lists it under /run/netns. */
  readonly netnsPath: string;
  /** UDP other than DNS: passes, or is refused and counted. */
  readonly udp: 'allow' | 'refuse';
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
