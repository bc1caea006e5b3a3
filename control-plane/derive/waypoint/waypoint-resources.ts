import { ENVOY_TYPES, type EnvoyResource, type EnvoyType } from '#api/envoy/types.ts';
import type { Workload } from '#api/workload.ts';
import type { Context, Derived, Origin } from '../context.ts';
import type { AttachedRoutes } from '../routes/attached.ts';
import { getOrAdd } from '../selectors.ts';
import type { ServiceInfo } from '../services.ts';
import { isOwnWaypoint, type Waypoint } from '../waypoints.ts';
import { buildPlainFrontend } from './frontends.ts';
import type { Built } from './messages.ts';
import { openServiceBook, type ServiceBook, sortBuilt } from './service-book.ts';

/** All that one waypoint is told. */
export interface WaypointResources {
  /** By type, then by name, sorted; every type is there. */
  readonly resources: ReadonlyMap<EnvoyType, ReadonlyMap<string, EnvoyResource>>;
  /** Names of the `istio.security.Authorization` resources that its listeners name, sorted. */
  readonly authorizations: readonly string[];
  /** Keys (`namespace/hostname`) of the services that it stands before, sorted. */
  readonly serves: readonly string[];
  /** Which object a resource comes from. */
  readonly origins: ReadonlyMap<EnvoyType, ReadonlyMap<string, Origin>>;
}

/** What the resources are made of. */
export interface WaypointInput {
  readonly context: Context;
  readonly services: ReadonlyMap<string, ServiceInfo>;
  readonly workloads: readonly Derived<Workload>[];
  readonly routes: AttachedRoutes;
}

/** The resources of every waypoint of ours, by `namespace/name` of its Gateway. */
export function deriveWaypoints(input: WaypointInput): ReadonlyMap<string, WaypointResources> {
  const waypoints = [...input.context.waypoints.byKey.values()].filter(isOwnWaypoint);
  if (waypoints.length === 0) return new Map();
  const book = openServiceBook(input.context, input.services, input.workloads);
  const bound = bindServices(waypoints, input.services.values());
  return new Map(
    waypoints.map((waypoint) => [waypoint.key, deriveWaypoint(book, bound.get(waypoint.key) ?? [])]),
  );
}

function deriveWaypoint(book: ServiceBook, services: readonly ServiceInfo[]): WaypointResources {
  const built: Built[] = services.flatMap((info) =>
    uniquePorts(info).flatMap((port) => buildPlainFrontend(book, info, port, {})),
  );
  const sorted = sortBuilt(built, ENVOY_TYPES);
  return {
    resources: mapValues(sorted, ({ resource }) => resource),
    authorizations: [],
    serves: services.map(({ key }) => key).sort(),
    origins: mapValues(sorted, ({ origin }) => origin),
  };
}

/** Services by waypoint; one with a canary waypoint is at both. */
function bindServices(
  waypoints: readonly Waypoint[],
  services: Iterable<ServiceInfo>,
): ReadonlyMap<string, readonly ServiceInfo[]> {
  const byAddress = new Map(waypoints.map(({ address, key }) => [JSON.stringify(address), key]));
  const bound = new Map<string, ServiceInfo[]>();
  for (const info of services) {
    const { waypoint, weightedWaypoints } = info.service;
    const addresses = [waypoint, ...weightedWaypoints.map(({ destination }) => destination)];
    const keys = new Set(addresses.map((address) => byAddress.get(JSON.stringify(address))));
    for (const key of keys) if (key !== undefined) getOrAdd(bound, key, () => []).push(info);
  }
  return bound;
}

/** A port number that is there for TCP and UDP counts once. */
function uniquePorts({ service }: ServiceInfo): ServiceInfo['service']['ports'] {
  const seen = new Set<number>();
  return service.ports.filter(({ servicePort }) => !seen.has(servicePort) && seen.add(servicePort));
}

function mapValues<Value>(
  built: ReadonlyMap<EnvoyType, ReadonlyMap<string, Built>>,
  pick: (one: Built) => Value,
): ReadonlyMap<EnvoyType, ReadonlyMap<string, Value>> {
  return new Map(
    [...built].map(([type, named]) => [type, new Map([...named].map(([name, one]) => [name, pick(one)]))]),
  );
}
