import { formatHostPort, type HostPort, type Ip, isIp, parseIp } from '#api/address.ts';
import { policyKey } from '#api/policy.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource, type ResourceType } from '#api/resource.ts';
import { resourceFromJson } from '#api/resource-json.ts';
import { serviceKey } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import type { ServedResources } from '#control-plane/status.ts';
import { answerName } from '#ztunnel/dns/resolve.ts';
import { decideNextHop, type NextHop } from '#ztunnel/next-hop.ts';
import { authorize } from '#ztunnel/policy/authorize.ts';
import type { Verdict } from '#ztunnel/policy/verdict.ts';
import { createTables } from '#ztunnel/tables/store.ts';
import type { Tables } from '#ztunnel/tables/tables.ts';
import { CliError } from '../cli-error.ts';
import { formatWorkloadRef, type WorkloadRef } from '../local/names.ts';

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
  readonly outcome:
    | 'allowed'
    | 'refused'
    | 'depends on the endpoint'
    | 'left to the network outside the mesh';
}

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
  };
  /** Null when no policy of the mesh is asked: the destination is not in it, or the connection never gets there. */
  readonly verdict: {
    readonly kind: Verdict['kind'];
    readonly reason: Verdict['reason'];
    readonly policy: string | null;
    readonly position: string | null;
    readonly dryRun: readonly { readonly policy: string; readonly would: 'allow' | 'deny' }[];
  } | null;
}

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
  const routes =
    destination === undefined ? [] : findRoutes({ served, tables, source, sourceIp, destination });
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
    outcome: outcomeOf(routes),
  };
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
function findRoutes(question: Question): readonly Route[] {
  const { tables, source, sourceIp, destination } = question;
  const routes = new Map<string, Route>();
  for (let sample = 0; sample < SAMPLES; sample++) {
    const random = (): number => (sample + 0.5) / SAMPLES;
    const hop = decideNextHop({ tables, source, sourceIp, destination, network: source.network, random });
    const route = describeRoute(question, hop);
    routes.set(JSON.stringify(route), route);
  }
  return [...routes.values()];
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
      expects: hop.kind === 'tunnel' && isInside ? hop.expected.map(formatIdentity) : [],
      destination: workload === undefined ? null : formatWorkloadRef(workload),
    },
    verdict:
      workload === undefined || hop.kind === 'refuse' || !isEnrolled(workload)
        ? null
        : describeVerdict(question, workload, portOf(hop, question.destination)),
  };
}

/** What is asked at the far end; without a proven identity when the caller is not in the mesh. */
function describeVerdict(
  { served, tables, source, sourceIp }: Question,
  workload: Workload,
  port: number,
): Route['verdict'] {
  const { trustDomain, namespace, serviceAccount } = source;
  const verdict = authorize({
    tables,
    workload,
    connection: {
      ...(isEnrolled(source) && { sourceIdentity: { trustDomain, namespace, serviceAccount } }),
      sourceIp,
      destinationIp: workload.addresses[0] ?? '',
      destinationPort: port,
    },
    missingPolicy: 'deny',
  });
  const { kind, reason, policy, rule, dryRun } = verdict;
  const decisive = policy ?? allowsOf(tables, workload, reason);
  return {
    kind,
    reason,
    policy: decisive === undefined ? null : objectOf(served, decisive),
    position: decisive === undefined ? null : positionOf(served, AUTHORIZATION_TYPE, decisive, rule),
    dryRun: dryRun.map(({ policy: key, would }) => ({ policy: objectOf(served, key), would })),
  };
}

/** When no ALLOW matched, the first of those that could have. */
function allowsOf(tables: Tables, workload: Workload, reason: Verdict['reason']): string | undefined {
  if (reason !== 'no-allow-matched') return undefined;
  const named = workload.authorizationPolicies.flatMap((key) => tables.policyByKey(key) ?? []);
  const first = [...named, ...tables.policiesOfNamespace(workload.namespace)].find(
    ({ action, dryRun }) => action === 'ALLOW' && !dryRun,
  );
  return first === undefined ? undefined : policyKey(first);
}

function positionOf(served: ServedResources, type: ResourceType, name: string, rule?: number): string | null {
  const found = served.resources.find((one) => one.type === type && one.name === name);
  if (found === undefined) return null;
  return (rule === undefined ? undefined : found.ruleOrigins?.[rule]) ?? found.origin.position;
}

function objectOf(served: ServedResources, policy: string): string {
  const found = served.resources.find((one) => one.type === AUTHORIZATION_TYPE && one.name === policy);
  return found?.origin.object ?? policy;
}

function targetOf(hop: NextHop): string | undefined {
  if (hop.kind === 'tunnel') return hop.authority;
  if (hop.kind === 'passthrough') return formatHostPort(hop.to);
  return hop.kind === 'resolve' ? `${hop.hostname}:${hop.targetPort}` : undefined;
}

/** The application's port, which the authority of a tunnel ends with. */
function portOf(hop: NextHop, destination: HostPort): number {
  if (hop.kind === 'tunnel') return Number(hop.authority.slice(hop.authority.lastIndexOf(':') + 1));
  return hop.kind === 'passthrough' ? hop.to.port : destination.port;
}

function isEnrolled({ tunnelProtocol }: Workload): boolean {
  return tunnelProtocol === 'HBONE';
}

function outcomeOf(routes: readonly Route[]): Explanation['outcome'] {
  const isOpen = ({ hop, verdict }: Route): boolean => hop.kind !== 'refuse' && verdict?.kind !== 'deny';
  if (routes.length === 0) return 'left to the network outside the mesh';
  if (routes.every(({ hop }) => hop.kind === 'passthrough' && hop.destination === null)) {
    return 'left to the network outside the mesh';
  }
  if (routes.every(isOpen)) return 'allowed';
  return routes.some(isOpen) ? 'depends on the endpoint' : 'refused';
}
