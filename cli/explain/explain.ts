import { formatHostPort, type HostPort, type Ip, isIp, parseIp } from '#api/address.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource, type ResourceType } from '#api/resource.ts';
import { resourceFromJson } from '#api/resource-json.ts';
import { serviceKey } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import type { ServedResources } from '#control-plane/status.ts';
import { answerName } from '#ztunnel/dns/resolve.ts';
import { decideNextHop, type NextHop } from '#ztunnel/next-hop.ts';
import type { InboundConnection } from '#ztunnel/policy/verdict.ts';
import { createTables } from '#ztunnel/tables/store.ts';
import type { Tables } from '#ztunnel/tables/tables.ts';
import { CliError } from '../cli-error.ts';
import { formatWorkloadRef, type WorkloadRef } from '../local/names.ts';
import type { Explanation, Outcome, Route } from './explanation.ts';
import { ignoredFor } from './ignored.ts';
import {
  type CertificateFacts,
  factsOf,
  type MeshFacts,
  NO_FACTS,
  type WorkloadFacts,
} from './mesh-facts.ts';
import { findObstacle } from './obstacles.ts';
import { stranger } from './stranger.ts';
import { explainVerdict, isEnrolled, positionOf } from './verdicts.ts';
import type { WaypointExplanation } from './waypoint-explanation.ts';
import { endsOf, explainWaypoints, type RequestPart } from './waypoint-way.ts';

const NO_WAYPOINTS: RequestPart = {
  waypoints: [],
  rules: [],
  request: { method: 'GET', target: '/', headers: [] },
  nowMs: 0,
};

/** Balancing is asked this often, with evenly spread random numbers, to find every place where it may lead. */
const SAMPLES = 256;

/** Who calls: a workload, or whoever has an address. */
export type Caller = WorkloadRef | { readonly ip: Ip };

/** What is asked about. */
export interface ConnectionQuestion {
  /** What is served, and whose view of that it is. */
  readonly served: ServedResources;
  readonly basis?: string;
  readonly from: Caller;
  readonly to: { readonly host: string; readonly port: number };
  readonly part?: RequestPart;
  readonly facts?: MeshFacts;
}

/**
 * Asks the functions that the data path asks, on what is served.
 * @throws CliError when there is no such workload.
 */
export function explainConnection(question: ConnectionQuestion): Explanation {
  const { served, to, part = NO_WAYPOINTS, facts = NO_FACTS, basis = 'control plane' } = question;
  const tables = loadTables(served);
  const source = findSource(tables, question.from);
  const name = resolve(tables, source, to.host);
  const address = name.ip;
  const sourceIp =
    source.addresses.find((ip) => ip.includes(':') === address?.includes(':')) ?? source.addresses[0] ?? '';
  const destination = address === undefined ? undefined : { ip: address, port: to.port };
  const service = destination && tables.serviceByVip(source.network, destination.ip, source.namespace);
  const ways =
    destination === undefined ? [] : findWays({ served, tables, facts, source, sourceIp, destination });
  const waypoints = explainWaypoints({ served, tables, source, sourceIp, to, part }, ways);
  const routes = ways.map(({ route }) => route);
  const known = factsOf(facts, source);
  return {
    basis,
    from: {
      workload: source.namespace === '' ? source.name : formatWorkloadRef(source),
      node: source.node,
      address: sourceIp,
      enrolled: isEnrolled(source),
      identity: isEnrolled(source) ? formatIdentity(source) : null,
      capture: known?.capture ?? null,
      pending: known?.pending ?? null,
      certificate: certificateOf(known),
    },
    to: {
      ...to,
      resolved: destination ?? null,
      exists: name.exists,
      service: service === undefined ? null : service.hostname,
      position: service === undefined ? null : positionOf(served, ADDRESS_TYPE, serviceKey(service)),
    },
    routes,
    waypoints,
    outcome: name.exists ? outcomeOf(routes, waypoints) : 'no such name',
  };
}

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

function loadTables({ resources }: ServedResources): Tables {
  const tables = createTables();
  const ofType = (type: ResourceType): readonly Resource[] =>
    resources.filter((one) => one.type === type).map(({ resource }) => resourceFromJson(resource));
  for (const type of [AUTHORIZATION_TYPE, ADDRESS_TYPE] as const) {
    tables.apply({ type, updated: ofType(type), removed: [] });
  }
  return tables;
}

/**
 * The workload, or whoever has the address; somebody outside the mesh where nobody of it has.
 * @throws CliError
 */
function findSource(tables: Tables, from: Caller): Workload {
  if ('ip' in from) return tables.workloadByIp('', from.ip) ?? stranger(from.ip);
  const source = [...tables.workloads()].find(
    ({ namespace, name }) => namespace === from.namespace && name === from.name,
  );
  if (source !== undefined) return source;
  throw new CliError(
    `there is no workload ${formatWorkloadRef(from)}: tulle status lists them; or give the caller's address`,
  );
}

function certificateOf(known: WorkloadFacts | undefined): CertificateFacts | null {
  const certificate = known?.certificate ?? undefined;
  return certificate === undefined ? null : { serial: certificate.serial, notAfter: certificate.notAfter };
}

/** As the workload's resolver answers; IPv4 where there is a choice. Without an address it is a name of somebody else's. */
function resolve(
  tables: Tables,
  source: Workload,
  host: string,
): { readonly ip?: Ip; readonly exists: boolean } {
  if (isIp(host)) return { ip: parseIp(host), exists: true };
  let exists = true;
  for (const type of ['A', 'AAAA'] as const) {
    const answer = answerName({
      tables,
      name: host.replace(/\.$/, ''),
      type,
      clientNamespace: source.namespace,
      network: source.network,
      clusterDomain: 'cluster.local',
      ownsClusterDomain: true,
      ipv6: true,
      random: () => 0,
    });
    if (answer.kind === 'found' && answer.addresses[0] !== undefined) {
      return { ip: answer.addresses[0], exists };
    }
    if (answer.kind === 'no-such-name') exists = false;
  }
  return { exists };
}

/** All different ways, each once. */
function findWays(question: Question): readonly Way[] {
  const { tables, source, sourceIp, destination } = question;
  const asked = {
    ...{ tables, source, sourceIp, destination, network: source.network },
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
    ...(workload === undefined ||
    hop.kind === 'refuse' ||
    !isEnrolled(workload) ||
    isViaWaypoint(question, hop)
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

/** A caller that is not in the mesh goes to the destination itself. */
function isViaWaypoint({ source }: Pick<Question, 'source'>, hop: NextHop): boolean {
  return hop.kind === 'tunnel' && hop.viaWaypoint !== undefined && isEnrolled(source);
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

function outcomeOf(routes: readonly Route[], waypoints: readonly WaypointExplanation[]): Outcome {
  const leaves = ({ hop, obstacle }: Route): boolean =>
    hop.kind === 'passthrough' && hop.destination === null && obstacle === null;
  if (routes.every(leaves)) {
    return 'left to the network outside the mesh';
  }
  // What does not get to its waypoint is not the waypoint's to decide.
  const direct = routes.filter(({ hop, obstacle }) => !isWaypointHop(hop) || obstacle !== null);
  const isAtWaypoint = direct.length < routes.length;
  if (direct.length === 0 && waypoints.length === 0) return 'left to the waypoint';
  if (direct.length === 0 && waypoints.every(({ action }) => action.kind === 'answered')) {
    return 'answered by the waypoint';
  }
  const isOpen = ({ hop, verdict, obstacle }: Route): boolean =>
    hop.kind !== 'refuse' && verdict?.kind !== 'deny' && obstacle === null;
  const ends = [...direct.map(isOpen), ...(isAtWaypoint ? waypoints.flatMap(endsOf) : [])];
  if (ends.every(Boolean)) return 'allowed';
  return ends.some(Boolean) ? 'depends on the endpoint' : 'refused';
}

function isWaypointHop({ kind, reason }: Route['hop']): boolean {
  return kind === 'tunnel' && reason !== 'direct';
}
