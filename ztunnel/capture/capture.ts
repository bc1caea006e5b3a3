/**
 * How a pod's traffic gets into its ztunnel. Two implementations are meant: packet rules (`nftables.ts`) and eBPF; both
 * are installed and removed by the node agent, so that any ztunnel, also a stock one, finds them.
 */
export interface Capture {
  readonly method: 'nftables' | 'ebpf';
  /** Starts to capture. The ztunnel already listens. Connections that are established go on untouched. */
  readonly install: (pod: CapturedPod) => Promise<void>;
  /** Changes what may change while captured (UDP), without touching connections. */
  readonly update: (pod: CapturedPod) => Promise<void>;
  /** Stops capturing new connections; captured ones go on. */
  readonly release: (pod: CapturedPod) => Promise<void>;
  /** Connections that still run through the ztunnel's sockets in the pod. */
  readonly countCaptured: (pod: CapturedPod) => Promise<number>;
  /** Removes everything, once nothing captured is left or the pod is gone. */
  readonly remove: (pod: CapturedPod) => Promise<void>;
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
