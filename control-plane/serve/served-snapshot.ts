import { createHash } from 'node:crypto';
import { encodeResource } from '#api/codec.ts';
import { encodeResourceField } from '#api/discovery.ts';
import { ENVOY_TYPES, type EnvoyResource, type EnvoyType } from '#api/envoy/types.ts';
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type Resource,
  type ResourceType,
  resourceName,
  resourceType,
} from '#api/resource.ts';
import {
  keepUnchanged,
  resourcesOf,
  type ServedResource,
  type ServedType,
  type ServedView,
} from './served-view.ts';

/** What every node sees: the workload API, whole. */
export type NodeView = Readonly<Record<ResourceType, ReadonlyMap<string, ServedResource>>>;

/** Everything that is served at one moment, by who may see it. Never changed once made. */
export interface ServedSnapshot {
  readonly nodes: NodeView;
  /** By `namespace/name`: each waypoint sees its own, and nothing else. */
  readonly waypoints: ReadonlyMap<string, ServedView>;
}

/** A resource that no wire can carry: its previous version stays. */
export interface ServeFailure {
  readonly name: string;
  readonly message: string;
}

/** What one waypoint is to have. */
export interface WaypointInput {
  readonly resources: ReadonlyMap<EnvoyType, ReadonlyMap<string, EnvoyResource>>;
  /** Names of the Authorizations that its listeners name. */
  readonly authorizations: readonly string[];
}

/** Nothing, of both types. */
export const EMPTY_VIEW: NodeView = { [ADDRESS_TYPE]: new Map(), [AUTHORIZATION_TYPE]: new Map() };

/** Serialises what everyone is to see. Gives the previous snapshot itself when nothing changed at all. */
export function serveSnapshot(
  input: {
    readonly resources: Iterable<Resource>;
    /** By `namespace/name`. */
    readonly waypoints: ReadonlyMap<string, WaypointInput>;
  },
  previous?: ServedSnapshot,
): { readonly snapshot: ServedSnapshot; readonly failures: readonly ServeFailure[] } {
  const { view: nodes, failures } = serveResources(input.resources, previous?.nodes);
  const waypoints = serveWaypoints(input.waypoints, nodes, previous?.waypoints);
  const isUnchanged =
    nodes === previous?.nodes &&
    waypoints.size === previous.waypoints.size &&
    [...waypoints].every(([key, view]) => previous.waypoints.get(key) === view);
  return { snapshot: isUnchanged ? previous : { nodes, waypoints }, failures };
}

/**
 * Serialises resources of the workload API, taking over from the previous view what is unchanged. Gives the previous view itself when nothing
 * changed at all.
 */
export function serveResources(
  resources: Iterable<Resource>,
  previous: NodeView = EMPTY_VIEW,
): { readonly view: NodeView; readonly failures: readonly ServeFailure[] } {
  const next = {
    [ADDRESS_TYPE]: new Map<string, ServedResource>(),
    [AUTHORIZATION_TYPE]: new Map<string, ServedResource>(),
  };
  const failures: ServeFailure[] = [];
  for (const resource of resources) {
    const type = resourceType(resource);
    const name = resourceName(resource);
    const before = previous[type].get(name);
    try {
      next[type].set(name, serveBytes(type, name, encodeResource(resource), before));
    } catch (error) {
      failures.push({ name, message: error instanceof Error ? error.message : String(error) });
      if (before) next[type].set(name, before);
    }
  }
  const kept: NodeView = {
    [ADDRESS_TYPE]: keepUnchanged(previous[ADDRESS_TYPE], next[ADDRESS_TYPE]),
    [AUTHORIZATION_TYPE]: keepUnchanged(previous[AUTHORIZATION_TYPE], next[AUTHORIZATION_TYPE]),
  };
  return { view: isSame(previous, kept) ? previous : kept, failures };
}

/**
 * Puts together what each waypoint sees: its own resources, and of the Authorizations in `nodes` those that it names. Views
 * that are as they were are the previous ones.
 */
function serveWaypoints(
  waypoints: ReadonlyMap<string, WaypointInput>,
  nodes: NodeView,
  previous: ReadonlyMap<string, ServedView> | undefined,
): ReadonlyMap<string, ServedView> {
  return new Map(
    [...waypoints].map(([key, waypoint]) => [key, serveWaypoint(waypoint, nodes, previous?.get(key))]),
  );
}

function serveWaypoint(
  { resources, authorizations }: WaypointInput,
  nodes: NodeView,
  previous: ServedView | undefined,
): ServedView {
  const view: Partial<Record<ServedType, ReadonlyMap<string, ServedResource>>> = {};
  for (const type of ENVOY_TYPES) {
    const before = resourcesOf(previous, type);
    const after = [...(resources.get(type) ?? [])].map(([name, { value }]): [string, ServedResource] => [
      name,
      serveBytes(type, name, value, before.get(name)),
    ]);
    view[type] = keepUnchanged(before, new Map(after));
  }
  const named = authorizations.flatMap((name): [string, ServedResource][] => {
    const served = nodes[AUTHORIZATION_TYPE].get(name);
    return served ? [[name, served]] : [];
  });
  view[AUTHORIZATION_TYPE] = keepUnchanged(resourcesOf(previous, AUTHORIZATION_TYPE), new Map(named));
  return previous && isSame(previous, view) ? previous : view;
}

function isSame(before: ServedView, after: ServedView): boolean {
  return ([...ENVOY_TYPES, ADDRESS_TYPE, AUTHORIZATION_TYPE] as const).every(
    (type) => before[type] === after[type],
  );
}

/** A resource, serialised; the one before, if that is the same. */
export function serveBytes(
  type: ServedType,
  name: string,
  value: Uint8Array,
  before: ServedResource | undefined,
): ServedResource {
  if (before && Buffer.compare(before.value, value) === 0) return before;
  const version = createHash('sha256').update(value).digest('hex').slice(0, 16);
  return { name, version, value, field: encodeResourceField({ name, version, typeUrl: type, value }) };
}
