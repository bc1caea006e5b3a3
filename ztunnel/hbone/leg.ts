/** What happens at one end of a splice. After `onAbort` nothing else does. */
export interface LegEvents {
  /** Bytes came in; they are good for the length of the call. */
  readonly onData: (bytes: Buffer) => void;
  /** No more will: a FIN, END_STREAM. */
  readonly onEnd: () => void;
  /** More may be written after `write` said to wait. */
  readonly onDrain: () => void;
  /** All that was written, and the end, has been handed to the network. */
  readonly onFinish: () => void;
  /** It is gone, without having ended both ways; for people. */
  readonly onAbort: (reason: string) => void;
}

/**
 * One end of a splice: a TCP socket or a CONNECT stream. Each direction ends by itself (`onEnd`, `end`), or both are cut
 * short (`onAbort`, `abort`).
 */
export interface Leg {
  /** Starts to read. Called once. */
  readonly start: (events: LegEvents) => void;
  /** Takes all of the bytes, copying them. False: wait for `onDrain` before writing more. */
  readonly write: (bytes: Buffer) => boolean;
  /** Ends the outgoing direction, after what was written. */
  readonly end: () => void;
  /** Resets it, so that the other end sees that something is missing. No event comes after. Harmless when all has ended. */
  readonly abort: () => void;
  readonly pause: () => void;
  readonly resume: () => void;
  /** Bytes that have come in so far. */
  readonly bytesRead: () => number;
  /** Bytes of memory in which data waits, either way; absent: others count it. */
  readonly held?: () => number;
}
