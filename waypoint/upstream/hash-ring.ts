import type { Endpoint } from '../model.ts';
import { keyOfEndpoint } from './target.ts';

/** As Envoy has it: small enough to make, large enough for even shares. */
const MIN_RING_SIZE = 1024;
const MAX_RING_SIZE = 65_536;

/** Points on a circle, each an endpoint's: a key belongs to the next point. When endpoints come or go, few keys move. */
export interface HashRing {
  /** The endpoint of a key that is wanted, walking on from the key's own. Undefined if none is. */
  readonly pick: (key: string, isWanted: (endpoint: Endpoint) => boolean) => Endpoint | undefined;
}

/** Makes the ring of endpoints, by weight: as ketama does, with at least 1024 points. */
export function createHashRing(endpoints: readonly Endpoint[]): HashRing {
  const perWeight = pointsPerWeight(endpoints);
  const points = endpoints
    .flatMap((endpoint) => {
      const count = Math.ceil(Math.max(1, endpoint.weight) * perWeight);
      const key = keyOfEndpoint(endpoint);
      return Array.from({ length: count }, (_, index) => ({ at: hashOf(`${key}_${index}`), endpoint }));
    })
    .sort((a, b) => a.at - b.at);
  return {
    pick: (key, isWanted) => {
      const first = firstFrom(points, hashOf(key));
      for (let step = 0; step < points.length; step++) {
        const endpoint = points[(first + step) % points.length]?.endpoint;
        if (endpoint !== undefined && isWanted(endpoint)) return endpoint;
      }
      return undefined;
    },
  };
}

/** A power of two: where it stays the same, no key moves between endpoints that stay. */
function pointsPerWeight(endpoints: readonly Endpoint[]): number {
  const total = endpoints.reduce((sum, { weight }) => sum + Math.max(1, weight), 0);
  const wanted = 2 ** Math.ceil(Math.log2(MIN_RING_SIZE / total));
  const least = Math.min(...endpoints.map(({ weight }) => Math.max(1, weight)));
  // The least weight has a point of its own, unless the ring becomes too large.
  return Math.min(Math.max(wanted, 1 / least), MAX_RING_SIZE / total);
}

function firstFrom(points: readonly { readonly at: number }[], hash: number): number {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((points[middle]?.at ?? 0) < hash) low = middle + 1;
    else high = middle;
  }
  return low === points.length ? 0 : low;
}

/** MurmurHash3, 32 bits, of the characters' codes: spreads keys that differ in one character only. */
export function hashOf(text: string): number {
  let hash = 0;
  for (let index = 0; index < text.length; index++) {
    let k = Math.imul(text.charCodeAt(index), 0xcc9e2d51);
    k = (k << 15) | (k >>> 17);
    hash ^= Math.imul(k, 0x1b873593);
    hash = (hash << 13) | (hash >>> 19);
    hash = (Math.imul(hash, 5) + 0xe6546b64) | 0;
  }
  hash ^= text.length;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
