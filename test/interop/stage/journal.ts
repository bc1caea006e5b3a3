import type { Field, Seen } from '../case.ts';

/** An attempt that an application is looking at. */
export interface Entry {
  /** From 0, of this case; mirrors are counted by themselves. */
  readonly attempt: number;
  readonly body: (chunk: Buffer) => void;
  readonly end: (trailers: readonly Field[]) => void;
}

/** What the applications saw, by case. */
export interface Journal {
  /** A case begins: times count from now. */
  readonly open: (id: string) => void;
  readonly begin: (id: string, head: Omit<Seen, 'atMs' | 'body' | 'trailers' | 'complete'>) => Entry;
  /** What there is so far, in order. */
  readonly seen: (id: string) => readonly Seen[];
  readonly close: (id: string) => void;
  /** How many mirrored requests of that path there ever were, in cases whose names begin so. */
  readonly mirrored: (prefix: string, path: string) => number;
}

interface Record {
  readonly openedAt: number;
  readonly seen: (Seen & { body: string; trailers: readonly Field[]; complete: boolean })[];
}

/** Mirrors do not count as attempts. */
export function isMirror(app: string): boolean {
  return app.startsWith('mirror-');
}

/** A journal in memory. */
export function createJournal(): Journal {
  const cases = new Map<string, Record>();
  const mirrored: { readonly id: string; readonly path: string }[] = [];
  const recordOf = (id: string): Record => {
    const record = cases.get(id) ?? { openedAt: performance.now(), seen: [] };
    cases.set(id, record);
    return record;
  };
  return {
    open: (id) => void recordOf(id),
    begin: (id, head) => {
      const { openedAt, seen } = recordOf(id);
      const attempt = seen.filter(({ app }) => isMirror(app) === isMirror(head.app)).length;
      const atMs = Math.round(performance.now() - openedAt);
      const entry = { ...head, atMs, body: '', trailers: [] as readonly Field[], complete: false };
      seen.push(entry);
      if (isMirror(head.app)) mirrored.push({ id, path: head.path });
      return {
        attempt,
        body: (chunk) => {
          entry.body += chunk.toString('latin1');
        },
        end: (trailers) => Object.assign(entry, { trailers, complete: true }),
      };
    },
    seen: (id) => cases.get(id)?.seen ?? [],
    close: (id) => void cases.delete(id),
    mirrored: (prefix, path) =>
      mirrored.filter((each) => each.id.startsWith(prefix) && each.path === path).length,
  };
}

/** `rawHeaders` as fields, names lower case. */
export function fieldsOf(rawHeaders: readonly string[]): readonly Field[] {
  const fields: Field[] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2)
    fields.push([(rawHeaders[i] ?? '').toLowerCase(), rawHeaders[i + 1] ?? '']);
  return fields;
}
