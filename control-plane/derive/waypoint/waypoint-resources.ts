import { ENVOY_TYPES, type EnvoyResource, type EnvoyType } from '#api/envoy/types.ts';
import type { Workload } from '#api/workload.ts';
import type { Context, Derived, Origin } from '../context.ts';
import { problemAt } from '../problems.ts';
import type { AttachedFrontend, AttachedRoutes } from '../routes/attached.ts';
import { getOrAdd } from '../selectors.ts';
import type { ServiceInfo } from '../services.ts';
import type { Waypoint } from '../waypoints.ts';
import type { Target } from './backends.ts';
import type { FaultBook } from './fault-table.ts';
import { buildFrontend, type FrontendSetting } from './frontends.ts';
import { isOwnGateway } from './gateway-services.ts';
import type { Built } from './messages.ts';
import { openServiceBook, sortBuilt } from './service-book.ts';

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
  readonly faults: FaultBook;
}

/** The resources of every waypoint of ours, by `namespace/name` of its Gateway. */
export function deriveWaypoints(input: WaypointInput): ReadonlyMap<string, WaypointResources> {
  const waypoints = [...input.context.waypoints.byKey.values()].filter(({ gateway }) =>
    isOwnGateway(gateway),
  );
  if (waypoints.length === 0) return new Map();
  const book = openServiceBook(input.context, input.services, input.workloads);
  const bound = bindServices(waypoints, input.services.values());
  const routes = Map.groupBy(input.routes.frontends, ({ service, port }) => `${service} ${port}`);
  return new Map(
    waypoints.map(({ key }) => {
      const services = bound.get(key) ?? [];
      const setting = { book, faults: input.faults.at(key), policy: {} };
      return [key, summarize(services, buildServices(setting, services, routes))];
    }),
  );
}

function buildServices(
  setting: FrontendSetting,
  services: readonly ServiceInfo[],
  routes: ReadonlyMap<string, readonly AttachedFrontend[]>,
): readonly Built[] {
  return services.flatMap((info) =>
    uniquePorts(info).flatMap((port) => {
      const attached = routes.get(`${info.key} ${port.servicePort}`) ?? [];
      const forAll = attached.find(({ consumerNamespace }) => consumerNamespace === undefined);
      const forSome = attached.filter(({ consumerNamespace }) => consumerNamespace !== undefined);
      return [forAll, ...forSome].flatMap((frontend) => tryFrontend(setting, { info, port }, frontend));
    }),
  );
}

/** What no wire can carry, a number out of its range, is left out and reported: it must not stop all the rest. */
function tryFrontend(
  setting: FrontendSetting,
  target: Target,
  frontend: AttachedFrontend | undefined,
): readonly Built[] {
  try {
    return buildFrontend(setting, target, frontend);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    setting.book.context.report(
      problemAt(target.info.object, {
        path: 'spec',
        message: `port ${target.port.servicePort} cannot be written for its waypoint: ${reason}`,
        severity: 'error',
        effect: 'the waypoint refuses its connections',
      }),
    );
    return [];
  }
}

function summarize(services: readonly ServiceInfo[], built: readonly Built[]): WaypointResources {
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
