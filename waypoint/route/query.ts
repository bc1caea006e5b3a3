/**
 * The first value of a query parameter; empty for a name without a value; undefined without. Nothing is decoded and `+` is a
 * plus sign, as in Envoy.
 * @param query from its question mark on, or empty
 */
export function queryValue(query: string, name: string): string | undefined {
  let start = 1;
  while (start < query.length) {
    let end = query.indexOf('&', start);
    if (end < 0) end = query.length;
    if (query.startsWith(name, start)) {
      const after = start + name.length;
      if (after === end) return '';
      if (after < end && query[after] === '=') return query.slice(after + 1, end);
    }
    start = end + 1;
  }
  return undefined;
}
