import type { Difference } from '../case.ts';

/** A header `x-envoy-…` or `x-tulle-…` that a caller brings: Envoy lets it through from a caller that it takes for one of its own. */
export function stripped(name: string, value: string): Difference {
  return {
    because: 'ours lets no header of the proxies through that a caller has made up',
    aspects: ['seen request'],
    envoy: { seenHeaders: { [name]: value } },
    ours: { seenHeaders: { [name]: null } },
  };
}

/** Of an answer over HTTP/1 to a caller that did not send `TE: trailers`. */
export const TRAILERS: Difference = {
  because: 'a caller of HTTP/1 has to ask for trailers (RFC 9110, 6.5.1)',
  aspects: ['trailers'],
  envoy: { trailers: { 'x-trailer': 'yes' } },
  ours: { trailers: { 'x-trailer': null } },
};
