import type { StringMap } from '../source/objects.ts';

/** Whether every label that the selector names has that value. A selector without labels selects everything. */
export function selects(matchLabels: StringMap, labels: StringMap): boolean {
  for (const [key, value] of matchLabels) if (labels.get(key) !== value) return false;
  return true;
}

/** Finds what selects a set of labels without looking at every selector. */
export interface SelectorIndex<Value> {
  /** All whose selector selects the labels, in the order in which they were added. */
  find(labels: StringMap): Value[];
}

interface Entry<Value> {
  readonly order: number;
  readonly matchLabels: StringMap;
  readonly value: Value;
}

/** Indexes by the first label of each selector. Selectors without labels find nothing here. */
export function indexSelectors<Value>(
  entries: Iterable<{ readonly matchLabels: StringMap; readonly value: Value }>,
): SelectorIndex<Value> {
  const byLabel = new Map<string, Map<string, Entry<Value>[]>>();
  let order = 0;
  for (const { matchLabels, value } of entries) {
    const [first] = matchLabels;
    if (first === undefined) continue;
    const byValue = getOrAdd(byLabel, first[0], () => new Map<string, Entry<Value>[]>());
    getOrAdd(byValue, first[1], () => []).push({ order, matchLabels, value });
    order += 1;
  }
  return { find: (labels) => find(byLabel, labels) };
}

/** The value of the key, made and kept when there is none. */
export function getOrAdd<Key, Value>(map: Map<Key, Value>, key: Key, make: () => Value): Value {
  const present = map.get(key);
  if (present !== undefined) return present;
  const made = make();
  map.set(key, made);
  return made;
}

function find<Value>(
  byLabel: ReadonlyMap<string, ReadonlyMap<string, readonly Entry<Value>[]>>,
  labels: StringMap,
): Value[] {
  const found: Entry<Value>[] = [];
  for (const [key, value] of labels)
    for (const entry of byLabel.get(key)?.get(value) ?? [])
      if (selects(entry.matchLabels, labels)) found.push(entry);
  return found.sort((a, b) => a.order - b.order).map((entry) => entry.value);
}
