import { formatHostPort, type HostPort, type Ip } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import type { ServedResources } from '#control-plane/status.ts';
import { decideNextHop, type NextHop } from '#ztunnel/next-hop.ts';
import type { InboundConnection } from '#ztunnel/policy/verdict.ts';
import type { Tables } from '#ztunnel/tables/tables.ts';
import { formatWorkloadRef } from '../local/names.ts';
import type { Route } from './explanation.ts';
import { ignoredFor } from './ignored.ts';
import { certificateOf, factsOf, type MeshFacts } from './mesh-facts.ts';
import { findObstacle } from './obstacles.ts';
import { explainVerdict, isEnrolled } from './verdicts.ts';

/** A way, as data and as it is shown. */
interface Way {
  readonly hop: NextHop;
  readonly route: Route;
}

interface Question {
  readonly served: ServedResources;
  readonly tables: Tables;
  readonly facts: MeshFacts;
  readonly source: Workload;
  readonly sourceIp: Ip;
  readonly destination: HostPort;
}

/** Balancing is asked this often, with evenly spread random numbers, to find every place where it may lead. */
const SAMPLES = 256;

/** All different ways, each once. */
export function findWays(question: Question): readonly Way[] {
  const { tables, source, sourceIp, destination } = question;
  const asked = {
    ...{ source, sourceIp, destination, network: source.network },
    tables: isEnrolled(source) ? tables : withoutWaypoints(tables),
    // As its node's ztunnel does, once it serves what is enrolled there.
    ...(isCaptured(source) && { servesPod: isCaptured }),
  };
  const ways = new Map<string, Way>();
  for (let sample = 0; sample < SAMPLES; sample++) {
    const random = (): number => (sample + 0.5) / SAMPLES;
    const hop = decideNextHop({ ...asked, random });
    const route = describeRoute(question, hop);
    ways.set(JSON.stringify(route), { hop, route });
  }
  return [...ways.values()];
}

/** As the network has them: who has no ztunnel goes to the destination itself, round its waypoint. */
function withoutWaypoints(tables: Tables): Tables {
  return {
    ...tables,
    workloadByIp: (network, ip) => {
      const found = tables.workloadByIp(network, ip);
      return found && unbound(found);
    },
    serviceByVip: (network, ip, namespace) => {
      const found = tables.serviceByVip(network, ip, namespace);
      return found && { ...unbound(found), weightedWaypoints: [] };
    },
  };
}

function unbound<T extends { readonly waypoint?: unknown }>({
  waypoint: _,
  ...rest
}: T): Omit<T, 'waypoint'> {
  return rest;
}

function describeRoute(question: Question, hop: NextHop): Route {
  const { destinationWorkload: workload } = hop;
  const isInside = isEnrolled(question.source);
  const target = targetOf(hop);
  return {
    hop: {
      kind: hop.kind === 'tunnel' && !isInside ? 'passthrough' : hop.kind,
      reason: hop.kind === 'tunnel' && !isInside ? 'source-not-in-mesh' : hop.reason,
      message: hop.kind === 'refuse' ? hop.message : null,
      dials: hop.kind === 'tunnel' && isInside ? formatHostPort(hop.hop) : (target ?? null),
      authority: hop.kind === 'tunnel' && isInside ? hop.authority : null,
      expects: 'expected' in hop && isInside ? hop.expected.map(formatIdentity) : [],
      destination: workload === undefined ? null : formatWorkloadRef(workload),
      notSameNode: (hop.kind === 'tunnel' && isInside && hop.notSameNode) || null,
    },
    end: workload === undefined ? null : describeEnd(question, workload, isInside && isCarried(hop)),
    obstacle: findObstacle({ ...question, hop, port: portOf(hop, question.destination) }),
    ...(workload === undefined || hop.kind === 'refuse' || !isEnrolled(workload) || isViaWaypoint(hop)
      ? { verdict: null, ignored: [] }
      : {
          verdict: explainVerdict(question, workload, connectionTo(question, workload, hop)),
          ignored: ignoredFor(question, question.facts, workload),
        }),
  };
}

function describeEnd({ facts }: Question, workload: Workload, showsIdentity: boolean): Route['end'] {
  const known = factsOf(facts, workload);
  return {
    workload: formatWorkloadRef(workload),
    node: workload.node,
    enrolled: isEnrolled(workload),
    identity: showsIdentity ? formatIdentity(workload) : null,
    capture: known?.capture ?? null,
    certificate: certificateOf(known),
  };
}

function isCarried({ kind }: NextHop): boolean {
  return kind === 'tunnel' || kind === 'same-node';
}

/** Whether its node's ztunnel carries its connections. */
function isCaptured(workload: Workload): boolean {
  return isEnrolled(workload) && !workload.nativeTunnel;
}

function isViaWaypoint(hop: NextHop): boolean {
  return hop.kind === 'tunnel' && hop.viaWaypoint !== undefined;
}

function connectionTo(
  { source, sourceIp, destination }: Question,
  workload: Workload,
  hop: NextHop,
): InboundConnection {
  const { trustDomain, namespace, serviceAccount } = source;
  return {
    ...(isEnrolled(source) && { sourceIdentity: { trustDomain, namespace, serviceAccount } }),
    sourceIp,
    destinationIp: workload.addresses[0] ?? '',
    destinationPort: portOf(hop, destination),
  };
}

function targetOf(hop: NextHop): string | undefined {
  if (hop.kind === 'tunnel') return hop.authority;
  if (hop.kind === 'passthrough' || hop.kind === 'same-node') return formatHostPort(hop.to);
  return hop.kind === 'resolve' ? `${hop.hostname}:${hop.targetPort}` : undefined;
}

/** The application's port, which the authority of a tunnel ends with. */
function portOf(hop: NextHop, destination: HostPort): number {
  if (hop.kind === 'tunnel') return Number(hop.authority.slice(hop.authority.lastIndexOf(':') + 1));
  return hop.kind === 'passthrough' || hop.kind === 'same-node' ? hop.to.port : destination.port;
}
