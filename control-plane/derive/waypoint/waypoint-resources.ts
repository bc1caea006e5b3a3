import { CLUSTER_TYPE, ENVOY_TYPES, type EnvoyResource, type EnvoyType } from '#api/envoy/types.ts';
import type { Workload } from '#api/workload.ts';
import type { Context, Derived, Origin } from '../context.ts';
import { problemAt } from '../problems.ts';
import type { AttachedFrontend, AttachedRoutes } from '../routes/attached.ts';
import { getOrAdd } from '../selectors.ts';
import type { ServiceInfo } from '../services.ts';
import type { TlsBook } from './backend-tls.ts';
import { collectBindings } from './bindings.ts';
import type { FaultBook } from './fault-table.ts';
import { draftFrontend, type FrontendSetting } from './frontends.ts';
import { isOwnGateway } from './gateway-services.ts';
import { type Built, build, type Draft } from './messages.ts';
import { clusterName } from './names.ts';
import { draftPodFrontends } from './pod-frontends.ts';
import type { ListenerPolicy, PolicyBook } from './policy-book.ts';
import { openServiceBook, type ServiceBook, sortBuilt } from './service-book.ts';
import { reportUnserved } from './unserved.ts';

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
  /** The same with what they are made of, for the next derivation. */
  readonly built: ReadonlyMap<EnvoyType, ReadonlyMap<string, Built>>;
}

/** What the resources are made of. */
export interface WaypointInput {
  readonly context: Context;
  readonly services: ReadonlyMap<string, ServiceInfo>;
  readonly workloads: readonly Derived<Workload>[];
  readonly routes: AttachedRoutes;
  readonly faults: FaultBook;
  readonly policies: PolicyBook;
  readonly tls: TlsBook;
  /** Those of the derivation before: what has not changed is taken over. */
  readonly previous: ReadonlyMap<string, WaypointResources> | undefined;
}

/** The resources of every waypoint of ours, by `namespace/name` of its Gateway. */
export function deriveWaypoints(input: WaypointInput): ReadonlyMap<string, WaypointResources> {
  const { context, faults, policies } = input;
  const waypoints = [...context.waypoints.byKey.values()].filter(({ gateway }) => isOwnGateway(gateway));
  if (waypoints.length === 0) return new Map();
  const book = openServiceBook(context, input.services, input.workloads, input.tls);
  const bound = collectBindings(waypoints, input.services.values(), input.workloads);
  const routes = Map.groupBy(input.routes.frontends, ({ service, port }) => `${service} ${port}`);
  return new Map(
    waypoints.map((waypoint) => {
      const table = faults.at(waypoint.key);
      const encode = openEncoder(input.previous?.get(waypoint.key));
      const services = (bound.services.get(waypoint.key) ?? []).map((info) => {
        const policy = policies.at(waypoint, info);
        reportUnserved(context, info, book.membersOf(info.key));
        const setting = { book, faults: table, policy };
        return { info, policy, built: buildService(setting, info, { routes, encode }) };
      });
      const workloads = (bound.workloads.get(waypoint.key) ?? []).map((derived) => {
        const policy = policies.at(waypoint);
        const make = (): readonly Built[] =>
          draftPodFrontends({ policy, faults: table.of() }, derived).map(encode);
        return { policy, built: tryBuild(book, derived, make) };
      });
      return [waypoint.key, summarize([...services, ...workloads])];
    }),
  );
}

/** Which waypoints have the cluster of a service's port. */
export function findClusters(
  services: ReadonlyMap<string, ServiceInfo>,
  waypoints: ReadonlyMap<string, WaypointResources>,
): (service: string, port: number) => readonly string[] {
  return (key, port) => {
    const info = services.get(key);
    if (info === undefined) return [];
    const names = [false, true].map((overHttp2) => clusterName(info.service, port, overHttp2));
    return [...waypoints].flatMap(([waypoint, { resources }]) =>
      names.some((name) => resources.get(CLUSTER_TYPE)?.has(name)) ? [waypoint] : [],
    );
  };
}

/** All ports of a service, as callers of each namespace see them. */
function buildService(
  setting: FrontendSetting,
  info: ServiceInfo,
  {
    routes,
    encode,
  }: { readonly routes: ReadonlyMap<string, readonly AttachedFrontend[]>; readonly encode: Encode },
): readonly Built[] {
  return uniquePorts(info).flatMap((port) => {
    const attached = routes.get(`${info.key} ${port.servicePort}`) ?? [];
    const forAll = attached.find(({ consumerNamespace }) => consumerNamespace === undefined);
    const forSome = attached.filter(({ consumerNamespace }) => consumerNamespace !== undefined);
    return [forAll, ...forSome].flatMap((frontend) =>
      tryBuild(setting.book, { source: info.object }, () =>
        draftFrontend(setting, { info, port }, frontend).map(encode),
      ),
    );
  });
}

type Encode = (draft: Draft) => Built;

/** Encodes each draft once, and not at all where it was so before. */
function openEncoder(before: WaypointResources | undefined): Encode {
  const built = new Map<Draft, Built>();
  return (one) => getOrAdd(built, one, () => build(one, before?.built.get(one.type)?.get(one.name)));
}

/** What no wire can carry, a number out of its range, is left out and reported: it must not stop all the rest. */
function tryBuild(
  { context }: ServiceBook,
  { source }: Pick<Derived, 'source'>,
  make: () => readonly Built[],
): readonly Built[] {
  try {
    return make();
  } catch (error) {
    if (source === undefined) return [];
    const reason = error instanceof Error ? error.message : String(error);
    context.report(
      problemAt(source, {
        path: 'spec',
        message: `it cannot be written for its waypoint: ${reason}`,
        severity: 'error',
        effect: 'the waypoint refuses its connections',
      }),
    );
    return [];
  }
}

interface Part {
  readonly info?: ServiceInfo;
  readonly policy: ListenerPolicy;
  readonly built: readonly Built[];
}

function summarize(parts: readonly Part[]): WaypointResources {
  const sorted = sortBuilt(
    parts.flatMap(({ built }) => built),
    ENVOY_TYPES,
  );
  return {
    resources: mapValues(sorted, ({ resource }) => resource),
    authorizations: [...new Set(parts.flatMap(({ policy }) => policy.authorizations ?? []))].sort(),
    serves: parts.flatMap(({ info }) => info?.key ?? []).sort(),
    origins: mapValues(sorted, ({ origin }) => origin),
    built: sorted,
  };
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
