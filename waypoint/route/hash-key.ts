import type { HeaderList } from '../exchange.ts';
import type { HashSource } from '../model.ts';
import { cookieValue, joinedValue } from './headers.ts';
import { queryValue } from './query.ts';

/** What ring-hash balancing goes by: the first of the sources that the request has; undefined: none. */
export function hashKey(
  sources: readonly HashSource[],
  request: { readonly headers: HeaderList; readonly query: string; readonly callerIp: string },
): string | undefined {
  for (const source of sources) {
    const value = keyFrom(source, request);
    if (value !== undefined && value !== '') return value;
  }
  return undefined;
}

function keyFrom(source: HashSource, request: Parameters<typeof hashKey>[1]): string | undefined {
  switch (source.kind) {
    case 'header':
      return joinedValue(request.headers, source.name);
    case 'cookie':
      return cookieValue(request.headers, source.name);
    case 'query':
      return queryValue(request.query, source.name);
    case 'source':
      return request.callerIp;
  }
}
