import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type Resource,
  type ResourceType,
  resourceName,
} from '#api/resource.ts';
import type { Workload } from '#api/workload.ts';
import { type MeshObject, type ObjectSet, objectKey, type Problem } from '../source/objects.ts';
import type { Context, Derived } from './context.ts';
import { deriveEnrolment, type EnrolmentPod } from './enrolment.ts';
import { deriveEndpoints, deriveSlice, deriveWorkloadEntry } from './external-workloads.ts';
import { compareText, type Inventory, takeInventory } from './inventory.ts';
import { derivePolicies } from './policies.ts';
import { type PolicyStatus, summarizePolicies } from './policy-status.ts';
import { requireWaypoints, waypointPolicies } from './require-waypoint.ts';
import { attachRoutes } from './routes/attach-routes.ts';
import type { RouteStatus } from './routes/attached.ts';
import { settleConflicts } from './service-conflicts.ts';
import { deriveServiceEntries } from './service-entries.ts';
import { deriveServices, type ServiceInfo } from './services.ts';
import { type MeshSettings, readSettings } from './settings.ts';
import type { VipAllocations } from './vips.ts';
import { openTlsBook } from './waypoint/backend-tls.ts';
import { openFaultBook } from './waypoint/fault-table.ts';
import type { FaultClock, FaultTimes } from './waypoint/fault-times.ts';
import { openPolicyBook } from './waypoint/policy-book.ts';
import { indexByObject } from './waypoint/unreached.ts';
import { type WantedWaypoint, wantWaypoints } from './waypoint/wanted.ts';
import { deriveWaypoints, findClusters, type WaypointResources } from './waypoint/waypoint-resources.ts';
import { reportWaypoints } from './waypoint-readiness.ts';
import { collectWaypoints } from './waypoints.ts';
import { derivePod, type Lookups, prepareLookups } from './workloads.ts';

/** What is derived from. */
export interface SnapshotInput {
  readonly objects: ObjectSet;
  /** Of {@link ./vips.ts}, for the same objects. */
  readonly vips: VipAllocations;
  /** First part of every uid; `Kubernetes` when not given. */
  readonly clusterId?: string;
  /** Domain of service names; `cluster.local` when not given. */
  readonly domain?: string;
  /** Settings of the snapshot before: a setting that is wrong stays what it was there. */
  readonly previousSettings?: MeshSettings | undefined;
  /** Trust domain of the authority, which no setting changes; absent: there is no authority yet. */
  readonly trustDomain?: string | undefined;
  /** The snapshot before, from which is taken over what has not changed; without it all is made anew, and the same comes of it. */
  readonly previous?: Pick<Snapshot, 'waypoints'> | undefined;
  /** When faults were first seen, and the time now; absent: none was, and none has ended. */
  readonly faults?: FaultClock;
}

/** All that the mesh is told, whole, and what is wrong with what it was derived from. Never changed once made. */
export interface Snapshot {
  readonly settings: MeshSettings;
  /** By type, then by xDS resource name, sorted. */
  readonly resources: ReadonlyMap<ResourceType, ReadonlyMap<string, Derived>>;
  /** What each node's agent is to do with its pods, by node. */
  readonly enrolment: ReadonlyMap<string, readonly EnrolmentPod[]>;
  readonly policies: readonly PolicyStatus[];
  /** What each waypoint is told, by `namespace/name` of its Gateway. */
  readonly waypoints: ReadonlyMap<string, WaypointResources>;
  /** Waypoints that are to run. */
  readonly wantedWaypoints: readonly WantedWaypoint[];
  readonly routeStatuses: readonly RouteStatus[];
  /** Which faults there are, and when the next of them ends. */
  readonly faults: FaultTimes;
  /** Those of the objects, then those found here. */
  readonly problems: readonly Problem[];
}

/** Derives everything from the objects. The order in which they come does not matter; nothing makes it throw. */
export function deriveSnapshot(input: SnapshotInput): Snapshot {
  const problems: Problem[] = [...input.objects.problems];
  const context = makeContext(input, problems);
  const policies = derivePolicies(context, input.objects.broken);
  const services = settleConflicts(context, [...deriveServices(context), ...deriveServiceEntries(context)]);
  const lookups = prepareLookups(context, services, policies.policiesOf);
  const bare = deriveWorkloads(context, lookups, services);
  const aimed = waypointPolicies(context, input.objects.broken);
  const { workloads, authorizations } = requireWaypoints(context, services, bare, aimed);
  reportWaypoints(context, services, workloads);
  const routes = attachRoutes({ inventory: context.inventory, services, hasWaypoint });
  problems.push(...routes.problems);
  const servicesOf = indexByObject(services);
  const faults = openFaultBook(context, input.faults ?? NO_CLOCK, servicesOf);
  const tls = openTlsBook(context, services);
  const aims = openPolicyBook(context, policies.outcomes, servicesOf);
  const previous = input.previous?.waypoints;
  const waypoints = deriveWaypoints({
    context,
    services,
    workloads,
    routes,
    faults,
    policies: aims,
    tls,
    previous,
  });
  const waypointsOf = findClusters(services, waypoints);
  const statuses = summarizePolicies(context, policies, workloads);
  return {
    settings: context.settings,
    resources: new Map([
      [AUTHORIZATION_TYPE, byName([...policies.authorizations, ...authorizations])],
      [ADDRESS_TYPE, byName([...[...services.values()].map(fromService), ...workloads])],
    ]),
    enrolment: deriveEnrolment(context, policies),
    policies: [
      ...aims.withWaypoints(statuses),
      ...aims.statuses(),
      ...faults.summarize(),
      ...tls.statuses(waypointsOf),
    ],
    waypoints,
    wantedWaypoints: wantWaypoints(context),
    routeStatuses: routes.statuses,
    faults: faults.times(),
    problems,
  };
}

const NO_CLOCK: FaultClock = { firstSeen: new Map(), nowMs: 0 };

function hasWaypoint({ service }: ServiceInfo): boolean {
  return service.waypoint !== undefined;
}

function makeContext(input: SnapshotInput, problems: Problem[]): Context {
  const inventory = takeInventory(input.objects.objects.values());
  const { settings, problems: faults } = readSettings(
    inventory.configMaps,
    input.previousSettings,
    input.trustDomain,
  );
  problems.push(...faults);
  const domain = input.domain ?? 'cluster.local';
  const network = networkOf(inventory, settings);
  const waypoints = collectWaypoints(inventory, domain, network);
  const clusterId = input.clusterId ?? 'Kubernetes';
  return {
    inventory,
    settings,
    waypoints,
    vips: input.vips,
    clusterId,
    domain,
    network,
    report: reportOnce(problems),
  };
}

/** What many objects find wrong with one (a label of their namespace, say) is one problem. */
function reportOnce(problems: Problem[]): Context['report'] {
  const seen = new Set<string>();
  return (problem) => {
    const key = JSON.stringify([problem.object, problem.path, problem.message]);
    if (!seen.has(key)) problems.push(problem);
    seen.add(key);
  };
}

/** The mesh's network is a label of its root namespace. */
function networkOf(inventory: Inventory, settings: MeshSettings): string {
  const root = inventory.namespaces.get(settings.rootNamespace);
  return root?.metadata.labels.get('topology.istio.io/network') ?? '';
}

function deriveWorkloads(
  context: Context,
  lookups: Lookups,
  services: ReadonlyMap<string, ServiceInfo>,
): readonly Derived<Workload>[] {
  const { pods, workloadEntries, serviceEntries, endpointSlices } = context.inventory;
  const ofEntries = Map.groupBy(services.values(), ({ object }) => object);
  return [
    ...pods.flatMap((pod) => {
      const workload = derivePod(context, lookups, pod);
      return workload === undefined ? [] : [fromObject(pod, workload)];
    }),
    ...workloadEntries.map((entry) => fromObject(entry, deriveWorkloadEntry(context, lookups, entry))),
    ...serviceEntries.flatMap((entry) =>
      deriveEndpoints(context, lookups, entry, ofEntries.get(entry) ?? []),
    ),
    ...endpointSlices.flatMap((slice) => deriveSlice(context, services, slice)),
  ];
}

function fromService({ service, object }: ServiceInfo): Derived {
  return fromObject(object, service);
}

function fromObject<R extends Resource>(source: MeshObject, resource: R): Derived<R> {
  return { resource, origin: { object: objectKey(source), position: source.position }, source };
}

function byName(derived: readonly Derived[]): ReadonlyMap<string, Derived> {
  const named = derived.map((one): [string, Derived] => [resourceName(one.resource), one]);
  return new Map(named.sort(([a], [b]) => compareText(a, b)));
}
