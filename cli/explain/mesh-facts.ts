import { z } from 'zod';
import type { MeshStatus } from '../local/mesh-status.ts';
import { formatWorkloadRef, type WorkloadRef } from '../local/names.ts';

/** What is known of the mesh beside what is served: how its processes are, who has which certificate, who is revoked. */
export interface MeshFacts {
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
  /** By `namespace/name`: those of this machine. */
  readonly workloads: ReadonlyMap<string, WorkloadFacts>;
  /** Nodes whose ztunnel is one of the mesh's, and whether it serves. */
  readonly ztunnels: ReadonlyMap<string, boolean>;
  readonly policies: readonly PolicyFacts[];
  readonly revoked: RevokedFacts;
}

export interface WorkloadFacts {
  readonly addresses: readonly string[];
  readonly capture: string | null;
  readonly pending: string | null;
  /** Since when, RFC 3339. */
  readonly pendingSince: string | null;
  readonly certificate: CertificateFacts | null;
  readonly labels: Readonly<Record<string, string>>;
}

export interface CertificateFacts {
  readonly serial: string;
  /** RFC 3339. */
  readonly notAfter: string;
}

/** What became of a policy as it is written. */
export interface PolicyFacts {
  readonly object: string;
  readonly position: string;
  readonly enforcedBy: readonly string[];
  readonly ineffective: readonly { readonly rule: number; readonly reason: string }[];
  /** Null: it does not choose by labels. */
  readonly selector: Readonly<Record<string, string>> | null;
}

/** Identities, and serial numbers in lower-case hexadecimal. */
export interface RevokedFacts {
  readonly identities: ReadonlySet<string>;
  readonly serials: ReadonlySet<string>;
}

const NOBODY_REVOKED: RevokedFacts = { identities: new Set(), serials: new Set() };

/** Nothing is known but what is served. */
export const NO_FACTS: MeshFacts = {
  nowMs: 0,
  workloads: new Map(),
  ztunnels: new Map(),
  policies: [],
  revoked: NOBODY_REVOKED,
};

/** Takes them from the status. */
export function readMeshFacts(
  { nodes, workloads, policies }: Pick<MeshStatus, 'nodes' | 'workloads' | 'policies'>,
  revoked: RevokedFacts,
  nowMs: number,
): MeshFacts {
  const own = workloads.filter(({ netns }) => netns !== null);
  return {
    nowMs,
    workloads: new Map(own.map((workload) => [formatWorkloadRef(workload), workload])),
    ztunnels: new Map(
      nodes.flatMap(({ name, ztunnel }) => (ztunnel === null ? [] : [[name, ztunnel.ready] as const])),
    ),
    policies,
    revoked,
  };
}

export function factsOf(facts: MeshFacts, workload: WorkloadRef): WorkloadFacts | undefined {
  return facts.workloads.get(formatWorkloadRef(workload));
}

/** The certificate that a workload has, as far as is known. */
export function certificateOf(known: WorkloadFacts | undefined): CertificateFacts | null {
  const certificate = known?.certificate ?? undefined;
  return certificate === undefined ? null : { serial: certificate.serial, notAfter: certificate.notAfter };
}

const REVOKED = z.array(
  z.union([
    z.object({ kind: z.literal('identity'), identity: z.string() }),
    z.object({ kind: z.literal('serial'), serial: z.string() }),
  ]),
);

/** Who is revoked, by what the control plane keeps in `ca/revoked.json`; nobody where there is no such file. */
export function readRevoked(json: unknown): RevokedFacts {
  const { data = [] } = REVOKED.safeParse(json);
  return {
    identities: new Set(data.flatMap((one) => (one.kind === 'identity' ? [one.identity] : []))),
    serials: new Set(data.flatMap((one) => (one.kind === 'serial' ? [one.serial] : []))),
  };
}
