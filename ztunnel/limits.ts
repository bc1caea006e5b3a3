import { type Allowance, RESETS } from './hbone/flood-guard.ts';

/** What one pod may have at a time in one byte worker, so that the others' share is left: docs/decisions/0025-limits.md. */
export interface PodLimits {
  /** Sockets: accepted in the pod and made for it, whatever they wait for. */
  readonly sockets: number;
  /** Connections that are being made for it, in each direction; more wait for their turn. */
  readonly dials: number;
  /** TLS handshakes of clients that are under way: in all, and from one address. */
  readonly handshakes: number;
  readonly handshakesOfPeer: number;
  /** Sessions of clients at one address. */
  readonly sessionsOfPeer: number;
  /** Streams that it resets, or has us reset or refuse, over all of its sessions. */
  readonly resetsOfPeer: Allowance;
}

/** Of the descriptors of the process, so much one pod may have. */
const SHARE_OF_SOCKETS = 0.75;
/** However many descriptors there are: a connection costs some 30 KiB of memory here, and more in the kernel. */
const MOST_SOCKETS = 65_536;
/** Of the descriptors, so much is kept for what goes on: certificates, logs, sessions to hops. */
const SHARE_OF_RESERVE = 1 / 16;
const MOST_RESERVE = 256;

/**
 * The limits for a process with so many descriptors.
 * @param workers among which a pod's connections are spread
 */
export function podLimits(descriptors: number, workers: number): PodLimits {
  const sockets = Math.min(MOST_SOCKETS, Math.floor(descriptors * SHARE_OF_SOCKETS));
  return {
    sockets: Math.max(1, Math.ceil(sockets / workers)),
    dials: 1_024,
    handshakes: 512,
    handshakesOfPeer: 128,
    sessionsOfPeer: 1_024,
    resetsOfPeer: RESETS,
  };
}

/** Descriptors that nothing new gets, of so many. */
export function reservedDescriptors(descriptors: number): number {
  return Math.min(MOST_RESERVE, Math.floor(descriptors * SHARE_OF_RESERVE));
}
