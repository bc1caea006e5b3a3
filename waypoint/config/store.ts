import {
  CLUSTER_TYPE,
  ENDPOINT_TYPE,
  type EnvoyType,
  LISTENER_TYPE,
  ROUTE_TYPE,
  SECRET_TYPE,
} from '#api/envoy/types.ts';
import type { Cluster, Endpoint, WaypointConfig } from '../model.ts';
import { compileSecret, joinTls, type Validation } from './backend-tls.ts';
import { type CompiledCluster, compileCluster } from './cluster.ts';
import { compileEndpoints } from './endpoints.ts';
import { indexFrontends } from './frontend-index.ts';
import { type CompiledListener, compileListener } from './listener.ts';
import { compileRouteTable } from './route-table.ts';

/** Resources of one type, as they come off the wire. */
export interface ConfigUpdate {
  readonly type: EnvoyType;
  readonly updated: readonly { readonly name: string; readonly value: Uint8Array }[];
  /** Gone, or not there; also those that are asked for no longer, once they are not. */
  readonly removed: readonly string[];
}

/** A resource that is not taken; what was there of its name stays. */
export interface Rejection {
  readonly name: string;
  /** `Listener x: filter y is not known`. */
  readonly reason: string;
}

/** Names that listeners and clusters mention, sorted: what else to ask for. */
export interface ConfigInterest {
  readonly routes: readonly string[];
  readonly endpoints: readonly string[];
  readonly secrets: readonly string[];
  readonly authorizations: readonly string[];
}

/** What a waypoint has been told. */
export interface ConfigStore {
  /** The same object until something changes; parts that do not change stay the same objects. */
  readonly current: () => WaypointConfig;
  /** Takes in what can be taken, in whatever order types come. Only what is named is compiled. */
  readonly apply: (update: ConfigUpdate) => readonly Rejection[];
  readonly interest: () => ConfigInterest;
  /** Names of routes, endpoints and secrets that are mentioned and of which nothing has been heard. */
  readonly missing: () => readonly string[];
}

/** An empty one. */
export function createConfigStore(): ConfigStore {
  const listeners = createTable(LISTENER_TYPE, 'Listener', compileListener);
  const routes = createTable(ROUTE_TYPE, 'RouteConfiguration', compileRouteTable);
  const clusters = createTable(CLUSTER_TYPE, 'Cluster', compileCluster);
  const endpoints = createTable(ENDPOINT_TYPE, 'ClusterLoadAssignment', compileEndpoints);
  const secrets = createTable(SECRET_TYPE, 'Secret', compileSecret);
  const tables: readonly Table<unknown>[] = [listeners, routes, clusters, endpoints, secrets];

  let config: WaypointConfig = {
    frontends: indexFrontends(new Map()),
    routes: new Map(),
    clusters: new Map(),
  };

  const build = (type: EnvoyType, changed: ReadonlySet<string>): WaypointConfig => {
    switch (type) {
      case LISTENER_TYPE:
        return { ...config, frontends: indexFrontends(new Map(listeners.held)) };
      case ROUTE_TYPE:
        return { ...config, routes: new Map(routes.held) };
      default:
        return {
          ...config,
          clusters: joinClusters(config.clusters, { type, changed, clusters, endpoints, secrets }),
        };
    }
  };

  const interest = (): ConfigInterest => interestOf(listeners.held, clusters.held);
  return {
    current: () => config,
    apply: (update) => {
      const table = tables.find(({ type }) => type === update.type);
      if (table === undefined) return [];
      const { rejections, changed } = table.apply(update);
      if (changed.size > 0) config = build(update.type, changed);
      if (update.type === LISTENER_TYPE) routes.forgetAnswers(interest().routes);
      if (update.type === CLUSTER_TYPE) {
        endpoints.forgetAnswers(interest().endpoints);
        secrets.forgetAnswers(interest().secrets);
      }
      return rejections;
    },
    interest,
    missing: () => {
      const names = interest();
      return [
        ...names.routes.filter((name) => !routes.isAnswered(name)),
        ...names.endpoints.filter((name) => !endpoints.isAnswered(name)),
        ...names.secrets.filter((name) => !secrets.isAnswered(name)),
      ];
    },
  };
}

interface Table<T> {
  readonly type: EnvoyType;
  readonly held: ReadonlyMap<string, T>;
  readonly apply: (update: ConfigUpdate) => {
    readonly rejections: readonly Rejection[];
    readonly changed: ReadonlySet<string>;
  };
  /** Whether something was heard of a name: that it is there, that it is not, or something that was not taken. */
  readonly isAnswered: (name: string) => boolean;
  /** Forgets what was heard of absent names but these. */
  readonly forgetAnswers: (wanted: readonly string[]) => void;
}

function createTable<T>(type: EnvoyType, kind: string, compile: (bytes: Uint8Array) => T): Table<T> {
  const held = new Map<string, T>();
  // Names that were answered with nothing to hold.
  const absent = new Set<string>();
  return {
    type,
    held,
    apply: ({ updated, removed }) => {
      const rejections: Rejection[] = [];
      const changed = new Set<string>();
      for (const name of removed) {
        absent.add(name);
        if (held.delete(name)) changed.add(name);
      }
      for (const { name, value } of updated) {
        try {
          const compiled = compile(value);
          held.delete(name); // What was told last comes last.
          held.set(name, compiled);
          absent.delete(name);
          changed.add(name);
        } catch (error) {
          // Whatever it is, it must not disturb the others.
          if (!held.has(name)) absent.add(name);
          const reason = error instanceof Error ? error.message : String(error);
          rejections.push({ name, reason: `${kind} ${name}: ${reason}` });
        }
      }
      return { rejections, changed };
    },
    isAnswered: (name) => held.has(name) || absent.has(name),
    forgetAnswers: (wanted) => {
      const isWanted = new Set(wanted);
      for (const name of absent) if (!isWanted.has(name)) absent.delete(name);
    },
  };
}

function joinClusters(
  before: ReadonlyMap<string, Cluster>,
  parts: {
    readonly type: EnvoyType;
    readonly changed: ReadonlySet<string>;
    readonly clusters: Table<CompiledCluster>;
    readonly endpoints: Table<readonly Endpoint[]>;
    readonly secrets: Table<Validation>;
  },
): ReadonlyMap<string, Cluster> {
  const { type, changed } = parts;
  const joined = new Map<string, Cluster>();
  for (const [name, compiled] of parts.clusters.held) {
    const touched =
      (type === CLUSTER_TYPE && changed.has(name)) ||
      (type === ENDPOINT_TYPE && changed.has(compiled.endpoints)) ||
      (type === SECRET_TYPE && compiled.tls?.secret !== undefined && changed.has(compiled.tls.secret));
    const same = touched ? undefined : before.get(name);
    joined.set(name, same ?? join(compiled, parts.endpoints.held, parts.secrets.held));
  }
  return joined;
}

/** Without its roots a cluster has no endpoints: nothing is sent that is not protected as wanted. */
function join(
  { cluster, endpoints: name, tls }: CompiledCluster,
  endpoints: ReadonlyMap<string, readonly Endpoint[]>,
  secrets: ReadonlyMap<string, Validation>,
): Cluster {
  const found = endpoints.get(name) ?? [];
  if (tls === undefined) return { ...cluster, endpoints: found };
  const joined = joinTls(tls, tls.secret === undefined ? undefined : secrets.get(tls.secret));
  return joined === undefined ? { ...cluster, endpoints: [] } : { ...cluster, tls: joined, endpoints: found };
}

function interestOf(
  listeners: ReadonlyMap<string, CompiledListener>,
  clusters: ReadonlyMap<string, CompiledCluster>,
): ConfigInterest {
  const frontends = [...listeners.values()].map(({ frontend }) => frontend);
  const compiled = [...clusters.values()];
  return {
    routes: unique(frontends.map((frontend) => frontend.routeTable)),
    endpoints: unique(compiled.map((cluster) => cluster.endpoints)),
    secrets: unique(compiled.map((cluster) => cluster.tls?.secret)),
    authorizations: unique(frontends.flatMap((frontend) => frontend.authorizations)),
  };
}

function unique(names: readonly (string | undefined)[]): readonly string[] {
  return [...new Set(names.filter((name) => name !== undefined))].sort();
}
