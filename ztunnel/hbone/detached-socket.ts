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
