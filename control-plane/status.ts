import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type ResourceType } from '#api/resource.ts';
import { type ResourceJson, resourceToJson } from '#api/resource-json.ts';
import type { GatewayAddress, Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import type { IssuedRecord } from '#certs/issued.ts';
import type { AuthorityReport } from './authority-report.ts';
import type { Derived } from './derive/context.ts';
import type { PolicyStatus } from './derive/policy-status.ts';
import type { MeshState } from './mesh-state.ts';
import { rotationProblems } from './rotation-problems.ts';
import type { ClientStatus, DiscoveryServer } from './serve/server.ts';
import type { Shortage } from './serve/shortages.ts';
import { formatPosition, type Problem } from './source/objects.ts';
import {
  type PolicyWaypoints,
  policyWaypoints,
  type StatusFault,
  type StatusRoute,
  type StatusWaypoint,
  type StatusXds,
  statusFaults,
  statusRoutes,
  statusWaypoints,
  statusXds,
} from './status-waypoints.ts';

/** What is looked at. */
export interface StatusSources {
  readonly state: MeshState;
  /** What keeps the newest objects from being in force. */
  readonly problems: readonly Problem[];
  readonly discovery: Pick<DiscoveryServer, 'clients' | 'waypoints' | 'hasAcked'>;
  /** The newest certificate of each identity on each node. */
  readonly issued: readonly IssuedRecord[];
  readonly svidTtlMs: number;
  readonly rotation: AuthorityReport['rotation'];
  readonly shortages: readonly Shortage[];
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
}

/** `GET /status`: what the control plane knows; `tulle status` adds processes, namespaces and what nodes report. */
export interface ControlPlaneStatus {
  readonly ready: boolean;
  readonly trustDomain: string;
  readonly rootNamespace: string;
  readonly svidTtlSeconds: number;
  readonly problems: readonly StatusProblem[];
  readonly clients: readonly StatusClient[];
  readonly workloads: readonly StatusWorkload[];
  readonly services: readonly StatusService[];
  readonly waypoints: readonly StatusWaypoint[];
  readonly routes: readonly StatusRoute[];
  readonly policies: readonly StatusPolicy[];
  /** Those that are injected now. */
  readonly faults: readonly StatusFault[];
  readonly certificates: readonly StatusCertificate[];
}

export interface StatusProblem {
  readonly object: string;
  /** `file:line:column` */
  readonly position: string;
  readonly path: string;
  readonly message: string;
  readonly severity: 'warning' | 'error';
  readonly effect: string;
}

export interface StatusClient {
  readonly node: string;
  readonly connected: boolean;
  /** Types that its newest stream asked for. */
  readonly xds: readonly StatusXds[];
}

export interface StatusWorkload {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly node: string;
  readonly addresses: readonly string[];
  readonly identity: string;
  /** Whether it is reached by HBONE. */
  readonly enrolled: boolean;
  readonly healthy: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly certificate: { readonly serial: string; readonly notAfter: string } | null;
  readonly services: readonly string[];
  /** `namespace/hostname` or an address. */
  readonly waypoint: string | null;
}

export interface StatusService {
  readonly namespace: string;
  readonly name: string;
  readonly hostname: string;
  readonly addresses: readonly string[];
  readonly waypoint: string | null;
}

export interface StatusPolicy {
  readonly object: string;
  readonly position: string;
  /** `ztunnel/NODE`, `waypoint/NAMESPACE/NAME` */
  readonly enforcedBy: readonly string[];
  /** `2/3`: how many of them have it. */
  readonly acknowledged: string;
  readonly broken: boolean;
  readonly dryRun: boolean;
  readonly ineffective: readonly { readonly rule: number; readonly reason: string }[];
  /** Labels of the workloads that it is for; null: it does not choose by labels. */
  readonly selector: Readonly<Record<string, string>> | null;
}

export interface StatusCertificate {
  readonly identity: string;
  /** The node whose ztunnel holds it, or `waypoint/NAMESPACE/NAME`. */
  readonly node: string;
  readonly serial: string;
  /** RFC 3339. */
  readonly notAfter: string;
}

/** `GET /resources`: everything that is served, in domain terms, and where it was written. */
export interface ServedResources {
  readonly resources: readonly {
    readonly type: ResourceType;
    readonly name: string;
    readonly resource: ResourceJson;
    readonly origin: { readonly object: string; readonly position: string };
    /** Of a policy: where each of its rules is written. */
    readonly ruleOrigins?: readonly string[];
  }[];
}

/** Puts the status together. */
export function controlPlaneStatus(sources: StatusSources): ControlPlaneStatus {
  const { state, discovery } = sources;
  const { settings, problems, policies, resources } = state.snapshot;
  const certificates = new Map(
    sources.issued
      .filter(({ notAfterMs }) => notAfterMs > sources.nowMs)
      .map((issued) => [`${issued.node} ${issued.identity}`, statusCertificate(issued)]),
  );
  const waypoints = policyWaypoints(state, discovery);
  const addresses = [...(resources.get(ADDRESS_TYPE)?.values() ?? [])];
  return {
    ready: true,
    trustDomain: settings.trustDomain,
    rootNamespace: settings.rootNamespace,
    svidTtlSeconds: sources.svidTtlMs / 1000,
    problems: [
      ...rotationProblems(sources.rotation, sources.nowMs),
      ...sources.shortages.map(shortageProblem),
      ...[...sources.problems, ...state.problems, ...problems].map(statusProblem),
    ],
    clients: discovery.clients().map(statusClient),
    workloads: addresses.flatMap((derived) => statusWorkload(derived, certificates)),
    services: addresses.flatMap(statusService),
    waypoints: statusWaypoints(state, discovery),
    routes: statusRoutes(state),
    policies: policies.map((policy) => statusPolicy(policy, waypoints, discovery)),
    faults: statusFaults(state),
    certificates: [...certificates.values()],
  };
}

/** Everything that is served. */
export function servedResources(state: MeshState): ServedResources {
  const resources = [...state.snapshot.resources].flatMap(([type, ofType]) =>
    [...ofType].map(([name, { resource, origin, ruleOrigins }]) => ({
      type,
      name,
      resource: resourceToJson(resource),
      origin: { object: origin.object, position: formatPosition(origin.position) },
      ...(ruleOrigins && { ruleOrigins: ruleOrigins.map(formatPosition) }),
    })),
  );
  return { resources };
}

function statusProblem({ position, ...problem }: Problem): StatusProblem {
  return { ...problem, position: formatPosition(position) };
}

function shortageProblem({ subject, sinceMs, error }: Shortage): StatusProblem {
  const since = new Date(sinceMs).toISOString().replace(/\.\d+Z$/, 'Z');
  return {
    object: 'control-plane',
    position: '',
    path: '',
    message: `${subject} are refused since ${since}: ${error}`,
    severity: 'warning',
    effect: 'others are served',
  };
}

function statusClient({ node, connected, xds }: ClientStatus): StatusClient {
  return {
    node,
    connected,
    xds: xds.map(statusXds),
  };
}

function statusCertificate({ identity, node, serial, notAfterMs }: IssuedRecord): StatusCertificate {
  return { identity, node, serial, notAfter: new Date(notAfterMs).toISOString() };
}

function statusWorkload(
  { resource, source }: Derived,
  certificates: ReadonlyMap<string, StatusCertificate>,
): readonly StatusWorkload[] {
  if (resource.kind !== 'workload') return [];
  const identity = formatIdentity(resource);
  // A ztunnel has it for its workloads; a waypoint has its own.
  const holders = [resource.node, `waypoint/${resource.namespace}/${resource.serviceAccount}`];
  const certificate = holders.flatMap((holder) => certificates.get(`${holder} ${identity}`) ?? [])[0];
  return [
    {
      namespace: resource.namespace,
      name: resource.name,
      uid: resource.uid,
      node: resource.node,
      addresses: resource.addresses,
      identity,
      enrolled: resource.tunnelProtocol === 'HBONE',
      healthy: resource.status === 'HEALTHY',
      labels: Object.fromEntries(source?.metadata.labels ?? []),
      certificate: certificate ? { serial: certificate.serial, notAfter: certificate.notAfter } : null,
      services: [...resource.services.keys()],
      waypoint: waypointText(resource),
    },
  ];
}

function statusService({ resource }: Derived): readonly StatusService[] {
  if (resource.kind !== 'service') return [];
  const { namespace, name, hostname, addresses } = resource;
  return [
    { namespace, name, hostname, addresses: addresses.map(({ ip }) => ip), waypoint: waypointText(resource) },
  ];
}

function statusPolicy(
  policy: PolicyStatus,
  waypoints: PolicyWaypoints,
  discovery: Pick<DiscoveryServer, 'hasAcked'>,
): StatusPolicy {
  const { object, position, resource, nodes, broken, dryRun, ineffective } = policy;
  const enforcing = [
    ...nodes.map((node) => ({
      name: `ztunnel/${node}`,
      hasIt:
        resource !== undefined && discovery.hasAcked({ kind: 'node', node }, AUTHORIZATION_TYPE, resource),
    })),
    ...waypoints.enforcing(policy),
  ];
  return {
    object,
    position: formatPosition(position),
    enforcedBy: enforcing.map(({ name }) => name),
    acknowledged: `${enforcing.filter(({ hasIt }) => hasIt).length}/${enforcing.length}`,
    broken,
    dryRun,
    ineffective,
    selector: policy.selector === undefined ? null : Object.fromEntries(policy.selector),
  };
}

function waypointText({ waypoint }: { readonly waypoint?: Workload['waypoint'] }): string | null {
  return waypoint ? destinationText(waypoint.destination) : null;
}

function destinationText(destination: GatewayAddress['destination']): string {
  return destination.kind === 'hostname'
    ? `${destination.namespace}/${destination.hostname}`
    : destination.ip;
}
