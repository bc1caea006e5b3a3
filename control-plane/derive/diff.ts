import type { Resource } from '#api/resource.ts';
import { RESOURCE_TYPES, type ResourceUpdate } from '#api/resource.ts';
import type { Snapshot } from './snapshot.ts';

/**
 * What takes a client from one snapshot to the next, in the order in which it has to be told; a type without a change
 * is left out. From nothing, everything is an update.
 */
export function diffSnapshots(
  previous: Pick<Snapshot, 'resources'> | undefined,
  next: Pick<Snapshot, 'resources'>,
): readonly ResourceUpdate[] {
  return RESOURCE_TYPES.flatMap((type) => {
    const before = previous?.resources.get(type) ?? new Map<string, { readonly resource: Resource }>();
    const after = next.resources.get(type) ?? new Map<string, { readonly resource: Resource }>();
    const updated: Resource[] = [];
    for (const [name, { resource }] of after) {
      const old = before.get(name)?.resource;
      if (old === undefined || !isEqual(old, resource)) updated.push(resource);
    }
    const removed = [...before.keys()].filter((name) => !after.has(name));
    return updated.length + removed.length === 0 ? [] : [{ type, updated, removed }];
  });
}

/** Whether two values of plain data, lists and maps are equal. */
export function isEqual(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) || Array.isArray(b)) return Array.isArray(a) && Array.isArray(b) && equalLists(a, b);
  if (a instanceof Map || b instanceof Map) return a instanceof Map && b instanceof Map && equalMaps(a, b);
  return equalMaps(new Map(Object.entries(a)), new Map(Object.entries(b)));
}

function equalLists(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a.length === b.length && a.every((item, index) => isEqual(item, b[index]));
}

function equalMaps(a: ReadonlyMap<unknown, unknown>, b: ReadonlyMap<unknown, unknown>): boolean {
  if (a.size !== b.size) return false;
  for (const [key, value] of a) if (!b.has(key) || !isEqual(value, b.get(key))) return false;
  return true;
}
