import { formatHostPort, type HostPort, type Ip, isIp, parseIp } from '#api/address.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource, type ResourceType } from '#api/resource.ts';
import { resourceFromJson } from '#api/resource-json.ts';
import { serviceKey } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import type { ServedResources } from '#control-plane/status.ts';
import { answerName } from '#ztunnel/dns/resolve.ts';
import { decideNextHop, type NextHop, type NotSameNode } from '#ztunnel/next-hop.ts';
import type { InboundConnection } from '#ztunnel/policy/verdict.ts';
import { createTables } from '#ztunnel/tables/store.ts';
import type { Tables } from '#ztunnel/tables/tables.ts';
import { CliError } from '../cli-error.ts';
import { formatWorkloadRef, type WorkloadRef } from '../local/names.ts';
import { type ExplainedVerdict, explainVerdict, isEnrolled, positionOf } from './verdicts.ts';
import type { WaypointExplanation } from './waypoint-explanation.ts';
import { endsOf, explainWaypoints, type RequestPart } from './waypoint-way.ts';

/** Every decision that a connection would meet, in the order in which it meets them. */
export interface Explanation {
  readonly from: {
    readonly workload: string;
    readonly node: string;
    readonly address: Ip;
    readonly enrolled: boolean;
    /** What the other side is shown; null when the caller is not in the mesh, as then nobody is shown anything. */
    readonly identity: string | null;
  };
  readonly to: {
    readonly host: string;
    readonly port: number;
    /** What the name resolves to; null when it is not the mesh's to say. */
    readonly resolved: HostPort | null;
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
  | 'depends on the endpoint'
  | 'answered by the waypoint'
  /** Which is not one of ours: what it does is not known here. */
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
  /** Null when no policy of the mesh is asked: the destination is not in it, or a waypoint, or the connection never gets there. */
  readonly verdict: ExplainedVerdict | null;
}

const NO_WAYPOINTS: RequestPart = {
  waypoints: [],
  rules: [],
  request: { method: 'GET', target: '/', headers: [] },
  nowMs: 0,
};

/** Balancing is asked this often, with evenly spread random numbers, to find every place where it may lead. */
const SAMPLES = 256;

/**
 * Asks the functions that the data path asks, on what the control plane serves.
 * @throws CliError when there is no such workload.
 */
export function explainConnection(
  served: ServedResources,
  from: WorkloadRef,
  to: { readonly host: string; readonly port: number },
  part: RequestPart = NO_WAYPOINTS,
): Explanation {
  const tables = loadTables(served);
  const source = [...tables.workloads()].find(
    ({ namespace, name }) => namespace === from.namespace && name === from.name,
  );
  if (source === undefined) throw new CliError(`there is no workload ${formatWorkloadRef(from)}`);
  const address = resolve(tables, source, to.host);
  const sourceIp =
    source.addresses.find((ip) => ip.includes(':') === address?.includes(':')) ?? source.addresses[0] ?? '';
  const destination = address === undefined ? undefined : { ip: address, port: to.port };
  const service = destination && tables.serviceByVip(source.network, destination.ip, source.namespace);
  const ways = destination === undefined ? [] : findWays({ served, tables, source, sourceIp, destination });
  const waypoints = explainWaypoints({ served, tables, source, sourceIp, to, part }, ways);
  const routes = ways.map(({ route }) => route);
  return {
    from: {
      workload: formatWorkloadRef(from),
      node: source.node,
      address: sourceIp,
      enrolled: isEnrolled(source),
      identity: isEnrolled(source) ? formatIdentity(source) : null,
    },
    to: {
      ...to,
      resolved: destination ?? null,
      service: service === undefined ? null : service.hostname,
      position: service === undefined ? null : positionOf(served, ADDRESS_TYPE, serviceKey(service)),
    },
    routes,
    waypoints,
    outcome: outcomeOf(routes, waypoints),
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

/** As the workload's resolver answers; IPv4 where there is a choice. Undefined: a name of somebody else's. */
function resolve(tables: Tables, source: Workload, host: string): Ip | undefined {
  if (isIp(host)) return parseIp(host);
  for (const type of ['A', 'AAAA'] as const) {
    const answer = answerName({
      tables,
      name: host.replace(/\.$/, ''),
      type,
      clientNamespace: source.namespace,
      network: source.network,
      clusterDomain: 'cluster.local',
      ipv6: true,
      random: () => 0,
    });
    if (answer.kind === 'found' && answer.addresses[0] !== undefined) return answer.addresses[0];
  }
  return undefined;
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
    verdict:
      workload === undefined || hop.kind === 'refuse' || !isEnrolled(workload) || isViaWaypoint(question, hop)
        ? null
        : explainVerdict(question, workload, connectionTo(question, workload, hop)),
  };
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
  if (routes.every(({ hop }) => hop.kind === 'passthrough' && hop.destination === null)) {
    return 'left to the network outside the mesh';
  }
  const direct = routes.filter(({ hop }) => !isWaypointHop(hop));
  if (direct.length === 0 && waypoints.length === 0) return 'left to the waypoint';
  if (direct.length === 0 && waypoints.every(({ action }) => action.kind === 'answered')) {
    return 'answered by the waypoint';
  }
  const isOpen = ({ hop, verdict }: Route): boolean => hop.kind !== 'refuse' && verdict?.kind !== 'deny';
  const ends = [...direct.map(isOpen), ...waypoints.flatMap(endsOf)];
  if (ends.every(Boolean)) return 'allowed';
  return ends.some(Boolean) ? 'depends on the endpoint' : 'refused';
}

function isWaypointHop({ kind, reason }: Route['hop']): boolean {
  return kind === 'tunnel' && reason !== 'direct';
}
