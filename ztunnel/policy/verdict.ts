import type { Ip } from '#api/address.ts';
import type { Identity } from '#certs/identity.ts';

/** The facts about an inbound connection that a policy may look at. */
export interface InboundConnection {
  /** Who calls: the TLS peer, or whom it speaks for; absent for plaintext. */
  readonly sourceIdentity?: Identity;
  /** The TLS peer where it speaks for another: a waypoint. */
  readonly waypointIdentity?: Identity;
  /** The TCP peer's address. */
  readonly sourceIp: Ip;
  readonly destinationIp: Ip;
  /** The application's port, never 15008. */
  readonly destinationPort: number;
}

/** Why, and by which policy and rule: printed by the access log, `explain` and the tests alike. */
export type Verdict =
  | {
      readonly kind: 'allow';
      readonly reason: 'no-allow-policy' | 'allowed-by-policy';
      /** `namespace/name`. */
      readonly policy?: string;
      readonly rule?: number;
      readonly dryRun: readonly DryRun[];
    }
  | {
      readonly kind: 'deny';
      readonly reason: 'denied-by-policy' | 'no-allow-matched' | 'missing-policy';
      readonly policy?: string;
      readonly rule?: number;
      readonly dryRun: readonly DryRun[];
    };

/** What a dry-run policy would have done. */
export interface DryRun {
  readonly policy: string;
  readonly would: 'allow' | 'deny';
}
