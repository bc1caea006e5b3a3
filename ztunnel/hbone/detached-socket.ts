import type { Leg } from './leg.ts';

/**
 * A TCP socket that no leg reads or writes any more, while its connection goes on: nothing was sent to either end. It may be
 * attached again by this thread, another one or another process, once.
 */
export interface DetachedSocket {
  /** Of this process; whoever holds this owns it. Undefined: both its directions have ended, and it is closed. */
  readonly fd: number | undefined;
  /** Its FIN was read and passed on. */
  readonly hasEnded: boolean;
  /** Our FIN was sent. */
  readonly hasFinished: boolean;
  /** To be written into it before anything else: a copy. */
  readonly unsent: Uint8Array;
}

/** A leg that can let go of its socket. */
export interface DetachableLeg extends Leg {
  /**
   * The socket's descriptor, if it can be detached now: it has been started and did not break. `closed`: both directions have
   * ended, and there is none.
   */
  readonly descriptor: number | 'closed' | undefined;
  /** Reads nothing more, whatever it is told; what was read has been handed on. It can be written into still. */
  readonly stop: () => void;
  /**
   * Lets go of a socket that has a `descriptor`: nothing is sent by that, no event comes after, and the leg does nothing more. To
   * be called with its other end stopped, too.
   * @param fd a duplicate of the descriptor, which is what goes on; undefined when that is `closed`
   */
  readonly detach: (fd: number | undefined) => DetachedSocket;
}

/** Whether a leg is one that can let go. */
export function isDetachable(leg: Leg): leg is DetachableLeg {
  return 'detach' in leg;
}
