import type { EnvoyType } from '#api/envoy/types.ts';
import type { ResourceType } from '#api/resource.ts';

/** Whatever is served to anyone. */
export type ServedType = ResourceType | EnvoyType;

/** One resource, serialised once for all clients. The object is the same in two views exactly if nothing changed. */
export interface ServedResource {
  readonly name: string;
  /** Hash of the content: equal after a restart of the control plane if the resource is. */
  readonly version: string;
  /** The message itself, from which the version is made. */
  readonly value: Uint8Array;
  /** The entry of a response's `resources`, ready to be written. */
  readonly field: Uint8Array;
}

/** All that one kind of caller can see at one moment, by type and name. Never changed once made. */
export type ServedView = Readonly<Partial<Record<ServedType, ReadonlyMap<string, ServedResource>>>>;

/** What a client that has the one view lacks of the other. */
export interface Changes {
  readonly updated: readonly ServedResource[];
  readonly removed: readonly string[];
}

/** The resources of a type; none where the view has not got that type. */
export function resourcesOf(
  view: ServedView | undefined,
  type: ServedType,
): ReadonlyMap<string, ServedResource> {
  return view?.[type] ?? NOTHING;
}

const NOTHING: ReadonlyMap<string, ServedResource> = new Map();
const steps = new WeakMap<ServedView, WeakMap<ServedView, Map<ServedType, Changes>>>();

/** Worked out once for each pair of views, whatever the number of clients that take the step. */
export function changesBetween(before: ServedView, after: ServedView, type: ServedType): Changes {
  const stepsFrom = steps.get(before) ?? new WeakMap<ServedView, Map<ServedType, Changes>>();
  steps.set(before, stepsFrom);
  const step = stepsFrom.get(after) ?? new Map<ServedType, Changes>();
  stepsFrom.set(after, step);
  const changes = step.get(type) ?? difference(resourcesOf(before, type), resourcesOf(after, type));
  step.set(type, changes);
  return changes;
}

/** Takes over from before what is unchanged: the map itself where everything is. */
export function keepUnchanged(
  before: ReadonlyMap<string, ServedResource>,
  after: ReadonlyMap<string, ServedResource>,
): ReadonlyMap<string, ServedResource> {
  const { updated, removed } = difference(before, after);
  return updated.length === 0 && removed.length === 0 ? before : after;
}

function difference(
  before: ReadonlyMap<string, ServedResource>,
  after: ReadonlyMap<string, ServedResource>,
): Changes {
  if (before === after) return { updated: [], removed: [] };
  const updated = [...after.values()].filter((resource) => before.get(resource.name) !== resource);
  const removed = [...before.keys()].filter((name) => !after.has(name));
  return { updated, removed };
}
