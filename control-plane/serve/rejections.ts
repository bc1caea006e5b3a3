import { keptText } from './kept-text.ts';
import type { ServedResource } from './served-view.ts';

/** A client's words are kept up to this length. */
const LONGEST_MESSAGE = 2048;

/** Names are looked for in so much of a message that does not begin with one. */
const LONGEST_SEARCHED = 16_384;

/**
 * Which resources of a response a NACK means. A ztunnel writes `name: reason; name: reason`; an Envoy `Error adding/updating
 * cluster(s) name: reason, name: reason`. A message in which no name of the response is found is about all of it.
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
  const mentioned = reasons.size > 0 ? [] : resources.filter(({ name }) => mentions(error, name));
  const rejected = mentioned.length > 0 ? mentioned : resources;
  const found = reasons.size > 0 ? reasons : new Map(rejected.map((resource) => [resource, error]));
  return new Map([...found].map(([resource, reason]) => [resource, keptText(reason, LONGEST_MESSAGE)]));
}

/** Whether `name: ` is in the message, and not as the end of another name. */
function mentions(error: string, name: string): boolean {
  const searched = error.slice(0, LONGEST_SEARCHED);
  for (let at = searched.indexOf(`${name}: `); at >= 0; at = searched.indexOf(`${name}: `, at + 1))
    if (at === 0 || /[\s,]/.test(searched.charAt(at - 1))) return true;
  return false;
}
