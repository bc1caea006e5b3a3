import { type Ip, isIp, parseIp } from '#api/address.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource, type ResourceType } from '#api/resource.ts';
import { resourceFromJson } from '#api/resource-json.ts';
import { serviceKey } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import type { ServedResources } from '#control-plane/status.ts';
import { answerName } from '#ztunnel/dns/resolve.ts';
import { createTables } from '#ztunnel/tables/store.ts';
import type { Tables } from '#ztunnel/tables/tables.ts';
import { CliError } from '../cli-error.ts';
import { formatWorkloadRef, type WorkloadRef } from '../local/names.ts';
import type { Explanation, Outcome, Route } from './explanation.ts';
import { certificateOf, factsOf, type MeshFacts, NO_FACTS, type WorkloadFacts } from './mesh-facts.ts';
import { goesDirect } from './obstacles.ts';
import { stranger } from './stranger.ts';
import { isEnrolled, positionOf } from './verdicts.ts';
import type { WaypointExplanation } from './waypoint-explanation.ts';
import { endsOf, explainWaypoints, type RequestPart } from './waypoint-way.ts';
import { findWays } from './ways.ts';

const NO_WAYPOINTS: RequestPart = {
  waypoints: [],
  rules: [],
  request: { method: 'GET', target: '/', headers: [] },
  nowMs: 0,
};

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
 * @throws CliError when there is no such workload, or it waits to be one.
 */
export function explainConnection(question: ConnectionQuestion): Explanation {
  const { served, to, part = NO_WAYPOINTS, facts = NO_FACTS, basis = 'control plane' } = question;
  const tables = loadTables(served);
  const caller = findSource(tables, facts, question.from);
  const isDirect = goesDirect(tables, facts, caller);
  const source: Workload = isDirect ? { ...caller, tunnelProtocol: 'NONE' } : caller;
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
      enrolled: isEnrolled(caller),
      identity: isEnrolled(source) ? formatIdentity(source) : null,
      capture: known?.capture ?? null,
      pending: (isDirect ? GOES_DIRECT : known?.pending) ?? null,
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

const GOES_DIRECT =
  'its ztunnel is away, and as no policy closes it, its connections go direct, in plain text';

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
 * @throws CliError where it is not there, or waits to be: nobody has been told of it yet
 */
function findSource(tables: Tables, facts: MeshFacts, from: Caller): Workload {
  const source =
    'ip' in from
      ? tables.workloadByIp('', from.ip)
      : [...tables.workloads()].find(
          ({ namespace, name }) => namespace === from.namespace && name === from.name,
        );
  if (source !== undefined) return source;
  const [name, waiting] =
    [...facts.workloads].find(([key, { addresses }]) =>
      'ip' in from ? addresses.includes(from.ip) : key === formatWorkloadRef(from),
    ) ?? [];
  if (name !== undefined && waiting !== undefined) throw new CliError(waitText(name, waiting));
  if ('ip' in from) return stranger(from.ip);
  throw new CliError(
    `there is no workload ${formatWorkloadRef(from)}: tulle status lists them; or give the caller's address`,
  );
}

function waitText(name: string, { pending, pendingSince }: WorkloadFacts): string {
  const since = pendingSince === null ? '' : ` since ${pendingSince.replace(/\.\d+Z$/, 'Z')}`;
  return `${name} calls nobody yet: it waits${since} to be in the mesh: ${pending ?? 'the control plane has not seen it yet'}`;
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
