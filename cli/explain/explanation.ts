import type { HostPort, Ip } from '#api/address.ts';
import type { NextHop, NotSameNode } from '#ztunnel/next-hop.ts';
import type { Ignored } from './ignored.ts';
import type { CertificateFacts } from './mesh-facts.ts';
import type { Obstacle } from './obstacles.ts';
import type { ExplainedVerdict } from './verdicts.ts';
import type { WaypointExplanation } from './waypoint-explanation.ts';

/** Every decision that a connection would meet, in the order in which it meets them. */
export interface Explanation {
  /** Whose tables were asked: what the control plane serves, or, where it does not answer, what `ztunnel/NODE` has of it. */
  readonly basis: string;
  readonly from: {
    /** `namespace/name`, or the address that was given where nobody of the mesh has it. */
    readonly workload: string;
    readonly node: string;
    readonly address: Ip;
    readonly enrolled: boolean;
    /** What the other side is shown; null when the caller is not in the mesh, as then nobody is shown anything. */
    readonly identity: string | null;
    /** `ebpf` or `nftables`; null: nothing captures it, or it runs elsewhere. */
    readonly capture: string | null;
    /** Why it is not in the mesh yet, where it should be, or why its connections go round it now. */
    readonly pending: string | null;
    readonly certificate: CertificateFacts | null;
  };
  readonly to: {
    readonly host: string;
    readonly port: number;
    /** What the name resolves to; null when it is not the mesh's to say. */
    readonly resolved: HostPort | null;
    /** Whether nobody has that name, as it is one of the mesh's own domain. */
    readonly exists: boolean;
    readonly service: string | null;
    /** Where the service is written. */
    readonly position: string | null;
  };
  /** One for each place where the connection can go: balancing takes one of them. */
  readonly routes: readonly Route[];
  /** What the waypoints on the way decide; more than one only where a canary waypoint takes a share. */
  readonly waypoints: readonly WaypointExplanation[];
  readonly outcome: Outcome;
}

export type Outcome =
  | 'allowed'
  | 'refused'
  | 'no such name'
  | 'depends on the endpoint'
  | 'answered by the waypoint'
  /** Which is not one of ours, or is not known while the control plane is away: what it does is not known here. */
  | 'left to the waypoint'
  | 'left to the network outside the mesh';

/** A way that the connection may take, and whether it is let in at its end. */
export interface Route {
  readonly hop: {
    readonly kind: NextHop['kind'];
    readonly reason: string;
    readonly message: string | null;
    /** What is dialled. */
    readonly dials: string | null;
    /** CONNECT authority of a tunnel. */
    readonly authority: string | null;
    /** Who has to answer. */
    readonly expects: readonly string[];
    readonly destination: string | null;
    /** What keeps it in a tunnel, where both ends are on one node. */
    readonly notSameNode: NotSameNode | null;
  };
  /** Who is at the end of the hop: the destination, or an instance of its waypoint. Null where that is nobody of the mesh. */
  readonly end: {
    readonly workload: string;
    readonly node: string;
    readonly enrolled: boolean;
    /** What it shows of itself; null: nothing, as there is no tunnel. */
    readonly identity: string | null;
    readonly capture: string | null;
    readonly certificate: CertificateFacts | null;
  } | null;
  /** Null when no policy of the mesh is asked: the destination is not in it, or a waypoint, or the connection never gets there. */
  readonly verdict: ExplainedVerdict | null;
  /** What keeps it from being made, whatever policies say: a certificate that is not there or revoked, a process that is away. */
  readonly obstacle: Obstacle | null;
  /** What is written about the destination and does not count here, and why. */
  readonly ignored: readonly Ignored[];
}
