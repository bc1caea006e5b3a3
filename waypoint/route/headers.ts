import type { HeaderList } from '../exchange.ts';
import type { HeaderMutations } from '../model.ts';

/** The first value of a name (lower case); undefined without. */
export function firstValue(headers: HeaderList, name: string): string | undefined {
  for (let index = 0; index < headers.length; index += 2)
    if (headers[index] === name) return headers[index + 1];
  return undefined;
}

/** All values of a name, joined with `, ` (RFC 9110, 5.3); undefined without. */
export function joinedValue(headers: HeaderList, name: string): string | undefined {
  let joined: string | undefined;
  for (let index = 0; index < headers.length; index += 2) {
    if (headers[index] !== name) continue;
    const value = headers[index + 1] ?? '';
    joined = joined === undefined ? value : `${joined}, ${value}`;
  }
  return joined;
}

/** The value of a cookie, the first of its name (RFC 6265, 4.2.1), without its quotes; undefined without. */
export function cookieValue(headers: HeaderList, name: string): string | undefined {
  for (let index = 0; index < headers.length; index += 2) {
    if (headers[index] !== 'cookie') continue;
    for (const pair of (headers[index + 1] ?? '').split(';')) {
      const equals = pair.indexOf('=');
      if (equals < 0 || pair.slice(0, equals).trim() !== name) continue;
      const value = pair.slice(equals + 1).trim();
      return /^".*"$/.test(value) ? value.slice(1, -1) : value;
    }
  }
  return undefined;
}

/**
 * Takes away, then replaces, then adds, one set of mutations after the other. What is added is a line of its own. The same list
 * when there is nothing to do.
 */
export function mutateHeaders(headers: HeaderList, mutations: readonly HeaderMutations[]): HeaderList {
  let changed = headers;
  for (const { set, add, remove } of mutations) {
    if (set.length + add.length + remove.length === 0) continue;
    const gone = new Set([...remove, ...set.map(([name]) => name)]);
    const kept: string[] = [];
    for (let index = 0; index < changed.length; index += 2) {
      const name = changed[index] ?? '';
      if (!gone.has(name)) kept.push(name, changed[index + 1] ?? '');
    }
    for (const [name, value] of new Map(set)) kept.push(name, value);
    for (const [name, value] of add) kept.push(name, value);
    changed = kept;
  }
  return changed;
}

/** With headers in the place of those of the same names. */
export function withHeaders(headers: HeaderList, instead: HeaderList): HeaderList {
  return instead.length === 0 ? headers : mutateHeaders(headers, [settingAll(instead)]);
}

/** Headers in the place of those of the same names, as a change to be made with others. */
export function settingAll(headers: HeaderList): HeaderMutations {
  const set: [string, string][] = [];
  for (let index = 0; index < headers.length; index += 2)
    set.push([headers[index] ?? '', headers[index + 1] ?? '']);
  return { set, add: [], remove: [] };
}
