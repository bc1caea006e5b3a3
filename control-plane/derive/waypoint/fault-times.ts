import { type ObjectKey, objectKey, type TrafficPolicyObject } from '../../source/objects.ts';
import type { Fault } from '../../source/route-objects.ts';
import { digest } from '../digest.ts';

/** What the ends of faults are reckoned from. */
export interface FaultClock {
  /** Milliseconds since the epoch at which a fault was first seen, by its key. One that is not there is seen now. */
  readonly firstSeen: ReadonlyMap<string, number>;
  /** Keys of those that have ended before, and so have ended whatever the time is now. */
  readonly over?: ReadonlySet<string>;
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
}

/** What there is of faults. */
export interface FaultTimes {
  /**
   * Keys of all faults that are written, ended ones too; an edited fault has another key. To be kept with when each was first
   * seen.
   */
  readonly keys: readonly string[];
  /** Of these, those that have ended. */
  readonly over: ReadonlySet<string>;
  /** Milliseconds since the epoch when the next fault ends, and the resources change; absent: none will. */
  readonly nextExpiryMs?: number;
  /** Those that waypoints inject, in the order of their policies. */
  readonly inForce: readonly FaultInForce[];
}

/** A fault that is injected at this time. */
export interface FaultInForce {
  readonly key: string;
  /** `TrafficPolicy pay/chaos`. */
  readonly policy: ObjectKey;
  readonly name: string;
  /** What its policy aims at: `Service pay/ledger`, `HTTPRoute pay/ledger rule canary`. */
  readonly targets: readonly string[];
  /** Milliseconds since the epoch. */
  readonly endsAtMs: number;
}

/** Names a fault as it is written: `TrafficPolicy pay/chaos slow 3f0e…`. */
export function faultKey(policy: TrafficPolicyObject, fault: Fault): string {
  return `${objectKey(policy)} ${fault.name} ${digest(JSON.stringify(fault))}`;
}

/** When a fault ends, and whether it has. */
export function endOf(
  { firstSeen, over, nowMs }: FaultClock,
  key: string,
  { expiresAfterMs }: Fault,
): { readonly endsAtMs: number; readonly isOver: boolean } {
  const endsAtMs = (firstSeen.get(key) ?? nowMs) + expiresAfterMs;
  return { endsAtMs, isOver: endsAtMs <= nowMs || over?.has(key) === true };
}
