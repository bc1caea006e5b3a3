import { createHash } from 'node:crypto';
import { encodeResource } from '#api/codec.ts';
import { encodeResourceField } from '#api/discovery.ts';
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  RESOURCE_TYPES,
  type Resource,
  type ResourceType,
  resourceName,
  resourceType,
} from '#api/resource.ts';

/** One resource, serialised once for all clients. The object is the same in two snapshots exactly if nothing changed. */
export interface ServedResource {
  readonly name: string;
  /** Hash of the content: equal after a restart of the control plane if the resource is. */
  readonly version: string;
  /** The message itself, from which the version is made. */
  readonly value: Uint8Array;
  /** The entry of a response's `resources`, ready to be written. */
  readonly field: Uint8Array;
}

/** Everything that is served at one moment, by type and name. Never changed once made. */
export type ServedSnapshot = Readonly<Record<ResourceType, ReadonlyMap<string, ServedResource>>>;

/** What a client that has the one snapshot lacks of the other. */
export interface Changes {
  readonly updated: readonly ServedResource[];
  readonly removed: readonly string[];
}

/** A snapshot, and the resources that no wire can carry: their previous version stays. */
export interface ServedResult {
  readonly snapshot: ServedSnapshot;
  readonly failures: readonly { readonly name: string; readonly message: string }[];
}

/** Nothing, of both types. */
export const EMPTY_SNAPSHOT: ServedSnapshot = { [ADDRESS_TYPE]: new Map(), [AUTHORIZATION_TYPE]: new Map() };

/**
 * Serialises resources, taking over from the previous snapshot what is unchanged. Gives the previous snapshot itself when
 * nothing changed at all.
 */
export function serveResources(
  resources: Iterable<Resource>,
  previous: ServedSnapshot = EMPTY_SNAPSHOT,
): ServedResult {
  const next = {
    [ADDRESS_TYPE]: new Map<string, ServedResource>(),
    [AUTHORIZATION_TYPE]: new Map<string, ServedResource>(),
  };
  const failures: { name: string; message: string }[] = [];
  for (const resource of resources) {
    const type = resourceType(resource);
    const name = resourceName(resource);
    const before = previous[type].get(name);
    try {
      next[type].set(name, serveResource(type, name, resource, before));
    } catch (error) {
      failures.push({ name, message: error instanceof Error ? error.message : String(error) });
      if (before) next[type].set(name, before);
    }
  }
  const isSame = RESOURCE_TYPES.every((type) => {
    const { updated, removed } = difference(previous[type], next[type]);
    return updated.length === 0 && removed.length === 0;
  });
  return { snapshot: isSame ? previous : next, failures };
}

const steps = new WeakMap<ServedSnapshot, WeakMap<ServedSnapshot, Readonly<Record<ResourceType, Changes>>>>();

/** Worked out once for each pair of snapshots, whatever the number of clients that take the step. */
export function changesBetween(before: ServedSnapshot, after: ServedSnapshot, type: ResourceType): Changes {
  const stepsFrom = steps.get(before) ?? new WeakMap();
  steps.set(before, stepsFrom);
  const step = stepsFrom.get(after) ?? {
    [ADDRESS_TYPE]: difference(before[ADDRESS_TYPE], after[ADDRESS_TYPE]),
    [AUTHORIZATION_TYPE]: difference(before[AUTHORIZATION_TYPE], after[AUTHORIZATION_TYPE]),
  };
  stepsFrom.set(after, step);
  return step[type];
}

function serveResource(
  type: ResourceType,
  name: string,
  resource: Resource,
  before: ServedResource | undefined,
): ServedResource {
  const value = encodeResource(resource);
  if (before && Buffer.compare(before.value, value) === 0) return before;
  const version = createHash('sha256').update(value).digest('hex').slice(0, 16);
  return { name, version, value, field: encodeResourceField({ name, version, typeUrl: type, value }) };
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
