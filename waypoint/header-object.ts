import type { HeaderList } from './exchange.ts';

/**
 * Headers as node:http2 wants trailers: values of the same name come together. Names are anybody's, those of an object's own methods
 * among them.
 */
export function headerObject(headers: HeaderList): Record<string, string[]> {
  const byName = new Map<string, string[]>();
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] ?? '';
    const values = byName.get(name);
    if (values === undefined) byName.set(name, [headers[at + 1] ?? '']);
    else values.push(headers[at + 1] ?? '');
  }
  return Object.fromEntries(byName);
}
