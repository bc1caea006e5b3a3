import type { ServedResource } from './served-snapshot.ts';

/** A client's words are kept up to this length. */
const LONGEST_MESSAGE = 2048;

/**
 * Which resources of a response a NACK means. A ztunnel writes `name: reason; name: reason`; a message in which no name of
 * the response is found is about all of it.
 */
export function readRejections(
  resources: readonly ServedResource[],
  error: string,
): ReadonlyMap<ServedResource, string> {
  const byName = new Map(resources.map((resource) => [resource.name, resource]));
  const reasons = new Map<ServedResource, string>();
  let current: ServedResource | undefined;
  for (const part of error.split('; ')) {
    const colon = part.indexOf(': ');
    const named = colon < 0 ? undefined : byName.get(part.slice(0, colon));
    current = named ?? current;
    if (named) reasons.set(named, part.slice(colon + 2));
    else if (current) reasons.set(current, `${reasons.get(current)}; ${part}`);
  }
  const found = reasons.size > 0 ? reasons : new Map(resources.map((resource) => [resource, error]));
  return new Map([...found].map(([resource, reason]) => [resource, reason.slice(0, LONGEST_MESSAGE)]));
}
