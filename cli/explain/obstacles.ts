import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import { decideApplication } from '#ztunnel/inbound-target.ts';
import type { NextHop } from '#ztunnel/next-hop.ts';
import type { Tables } from '#ztunnel/tables/tables.ts';
import { plaintextVerdict } from '../local/node-agent/plaintext.ts';
import { factsOf, type MeshFacts } from './mesh-facts.ts';
import { isEnrolled } from './verdicts.ts';

/** What keeps a connection from being made, at which end. */
export interface Obstacle {
  readonly at: 'caller' | 'destination';
  readonly reason: 'ztunnel-away' | 'no-certificate' | 'certificate-expired' | 'revoked' | 'port-of-the-mesh';
  /** For people. */
  readonly message: string;
}

/** A connection whose way is decided, and what is known of its ends. */
export interface Attempt {
  readonly tables: Tables;
  readonly facts: MeshFacts;
  readonly source: Workload;
  readonly hop: NextHop;
  /** The application's port. */
  readonly port: number;
}

/** The first thing in its way; null: there is none. */
export function findObstacle(attempt: Attempt): Obstacle | null {
  const { source, hop } = attempt;
  if (hop.kind === 'refuse') return null;
  const isInside = isEnrolled(source);
  const hasIdentities = isInside && (hop.kind === 'tunnel' || hop.kind === 'same-node');
  const end = hop.destinationWorkload;
  return (
    (isInside ? ztunnelAway(attempt, 'caller', source, false) : null) ??
    (hasIdentities ? badIdentity(attempt, 'caller', source) : null) ??
    (end !== undefined && isEnrolled(end)
      ? (ztunnelAway(attempt, 'destination', end, hasIdentities) ??
        (hasIdentities ? badIdentity(attempt, 'destination', end) : null) ??
        portOfTheMesh(attempt, end))
      : null)
  );
}

/**
 * Whether a workload's connections go direct, in plain text, as its ztunnel is away: eBPF captures it, and no policy of its own
 * closes it. All others are closed then.
 */
export function goesDirect(tables: Tables, facts: MeshFacts, workload: Workload): boolean {
  if (!isEnrolled(workload) || facts.ztunnels.get(workload.node) !== false) return false;
  const { name, namespace, serviceAccount, uid, node } = workload;
  const isOpen = plaintextVerdict(tables, { uid, name, namespace, serviceAccount }, node) === 'allow';
  return isOpen && factsOf(facts, workload)?.capture === 'ebpf';
}

function ztunnelAway(
  { tables, facts }: Attempt,
  at: Obstacle['at'],
  workload: Workload,
  isTunnel: boolean,
): Obstacle | null {
  if (facts.ztunnels.get(workload.node) !== false) return null;
  if (!isTunnel && goesDirect(tables, facts, workload)) return null;
  return { at, reason: 'ztunnel-away', message: `ztunnel/${workload.node} does not serve` };
}

function badIdentity({ facts }: Attempt, at: Obstacle['at'], workload: Workload): Obstacle | null {
  const identity = formatIdentity(workload);
  if (facts.revoked.identities.has(identity)) {
    return { at, reason: 'revoked', message: `${identity} is revoked` };
  }
  const known = factsOf(facts, workload);
  if (known === undefined) return null; // It runs elsewhere: nobody here knows its certificate.
  const { certificate } = known;
  if (certificate === null) {
    return { at, reason: 'no-certificate', message: `${identity} has no certificate` };
  }
  if (facts.revoked.serials.has(certificate.serial)) {
    const message = `certificate ${certificate.serial} of ${identity} is revoked, and no other has come`;
    return { at, reason: 'revoked', message };
  }
  if (Date.parse(certificate.notAfter) > facts.nowMs) return null;
  const message = `the certificate of ${identity} ended at ${certificate.notAfter}`;
  return { at, reason: 'certificate-expired', message };
}

function portOfTheMesh({ tables, hop, port }: Attempt, workload: Workload): Obstacle | null {
  if (hop.kind === 'tunnel' && hop.viaWaypoint !== undefined) return null;
  const localIp = workload.addresses[0] ?? '';
  const target = decideApplication({ tables, workload, localIp }, { authority: '', port, named: undefined });
  return target.kind === 'target'
    ? null
    : { at: 'destination', reason: 'port-of-the-mesh', message: target.error };
}
