/** What the ends of faults are reckoned from. */
export interface FaultClock {
  /** Milliseconds since the epoch at which a fault was first seen, by its key. One that is not there is seen now. */
  readonly firstSeen: ReadonlyMap<string, number>;
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
}

/** What there is of faults. */
export interface FaultTimes {
  /** Keys of all faults that are written, ended ones too; an edited fault has another key. To be kept with when each was first seen. */
  readonly keys: readonly string[];
  /** Milliseconds since the epoch when the next fault ends, and the resources change; absent: none will. */
  readonly nextExpiryMs?: number;
}
