import { z } from 'zod';
import {
  groupName,
  headerName,
  headerValue,
  hostnamePattern,
  kindName,
  regexFault,
  textUpTo,
} from './gateway-words.ts';
import type {
  BackendRef,
  HttpMatch,
  ParentRef,
  RouteFilter,
  Unsupported,
  ValueMatch,
} from './route-objects.ts';
import { dnsLabel, dnsSubdomain, fields, portNumber, shown } from './schema-parts.ts';

/** Group of the Gateway API. */
export const GATEWAY_GROUP = 'gateway.networking.k8s.io';

/** A reference to a parent as it is written: without its defaults, as status repeats it. */
export interface WrittenParentRef {
  readonly group?: string;
  readonly kind?: string;
  readonly namespace?: string;
  readonly name: string;
  readonly sectionName?: string;
  readonly port?: number;
}

const parentRef: z.ZodType<WrittenParentRef> = fields({
  group: groupName.exactOptional(),
  kind: kindName.exactOptional(),
  namespace: dnsLabel.exactOptional(),
  name: dnsSubdomain,
  sectionName: dnsSubdomain.exactOptional(),
  port: portNumber.exactOptional(),
});

/** What a route is attached to: at most 32, each once. */
export const parentRefs: z.ZodType<readonly WrittenParentRef[]> = z
  .array(parentRef)
  .max(32)
  .default([])
  .superRefine((refs, context) => {
    const parents = Map.groupBy(refs.entries(), ([, ref]) => parentKey(ref));
    for (const entries of parents.values()) {
      const seen = new Set<string>();
      for (const [index, { sectionName = '', port = 0 }] of entries) {
        if (entries.length > 1 && sectionName === '' && port === 0) {
          const message =
            'names a parent that is there more than once: each of them needs a port or sectionName';
          context.addIssue({ code: 'custom', path: [index], message });
        } else if (seen.has(`${sectionName}/${port}`))
          context.addIssue({ code: 'custom', path: [index], message: 'is there twice' });
        seen.add(`${sectionName}/${port}`);
      }
    }
  });

function parentKey({
  group = GATEWAY_GROUP,
  kind = 'Gateway',
  namespace = '',
  name,
}: WrittenParentRef): string {
  return [group, kind, namespace, name].join('/');
}

/** With the defaults. `own` is the route's namespace. */
export function toParentRefs(written: readonly WrittenParentRef[], own: string): readonly ParentRef[] {
  return written.map((ref) => ({
    group: GATEWAY_GROUP,
    kind: 'Gateway',
    namespace: own,
    ...ref,
    written: { ...ref },
  }));
}

/** A reference to a backend as it is written. */
export interface WrittenBackendRef {
  readonly group: string;
  readonly kind: string;
  readonly namespace?: string;
  readonly name: string;
  readonly port?: number;
}

const reference = {
  group: groupName.default(''),
  kind: kindName.default('Service'),
  namespace: dnsLabel.exactOptional(),
  name: dnsSubdomain,
  port: portNumber.exactOptional(),
};

function needsPort({ group, kind, port }: WrittenBackendRef, context: z.RefinementCtx): void {
  if (group !== '' || kind !== 'Service' || port !== undefined) return;
  context.addIssue({ code: 'custom', path: ['port'], message: 'is required for a Service' });
}

/** A backend without weight: where a mirror goes. */
export const backendReference: z.ZodType<WrittenBackendRef> = fields(reference).superRefine(needsPort);

/** A backend with a weight, and for some kinds with filters of its own. */
export interface WrittenWeightedRef<Filter> extends WrittenBackendRef {
  readonly weight: number;
  readonly filters: readonly Filter[];
}

const weight = z.int().min(0, 'must not be negative').max(1_000_000, 'is more than 1000000').default(1);

/** The backends of a rule; each with filters, where there is a schema for them. */
export function backendRefs<Filter>(
  filters: z.ZodType<readonly Filter[]>,
): z.ZodType<readonly WrittenWeightedRef<Filter>[]> {
  const one = fields({ ...reference, weight, filters }).superRefine(needsPort);
  return z.array(one).max(16).default([]);
}

/** The backends of a rule of a TCPRoute or TLSRoute. */
export const plainBackendRefs: z.ZodType<readonly WrittenWeightedRef<never>[]> = z
  .array(
    fields({ ...reference, weight })
      .superRefine(needsPort)
      .transform((ref) => ({ ...ref, filters: [] })),
  )
  .min(1, 'is empty; name a backend')
  .max(16);

/** With the defaults. `own` is the route's namespace. */
export function toBackendRef(
  written: WrittenBackendRef & { readonly weight?: number },
  own: string,
  filters: readonly RouteFilter[],
): BackendRef {
  const { group, kind, namespace = own, name, port, weight: share = 1 } = written;
  return { group, kind, namespace, name, weight: share, filters, ...(port !== undefined && { port }) };
}

/** A match on a header or query parameter as it is written. */
export interface WrittenValueMatch {
  readonly type: string;
  readonly name: string;
  readonly value: string;
}

/** Matches on values by name. */
export function valueMatches(longest: number): z.ZodType<readonly WrittenValueMatch[]> {
  const value = longest === 4096 ? headerValue : textUpTo(longest);
  const one = fields({ type: z.string().default('Exact'), name: headerName, value });
  return z.array(one).max(16).default([]);
}

/** What a converter finds that is not supported; `path` is that of the list. */
export type ReportUnsupported = (path: string, reason: string) => void;

/**
 * The first match of each name, those of an unknown type left out and reported, as are regular expressions that cannot be compiled.
 * Names of headers become lower case and so are compared without case.
 */
export function toValueMatches(
  written: readonly WrittenValueMatch[],
  options: { readonly isHeader: boolean; readonly path: string; readonly report: ReportUnsupported },
): HttpMatch['headers'] {
  const byName = new Map<string, { readonly name: string; readonly match: ValueMatch }>();
  for (const [index, { type, name: writtenName, value }] of written.entries()) {
    const name = options.isHeader ? writtenName.toLowerCase() : writtenName;
    if (byName.has(name)) continue;
    const place = `${options.path}[${index}]`;
    const fault = type === 'RegularExpression' ? regexFault(value) : undefined;
    if (fault !== undefined) options.report(`${place}.value`, fault);
    else if (type === 'Exact') byName.set(name, { name, match: { kind: 'exact', value } });
    else if (type === 'RegularExpression') byName.set(name, { name, match: { kind: 'regex', value } });
    else options.report(`${place}.type`, notSupported('type', type));
  }
  return [...byName.values()];
}

/** `type "Foo" is not supported; there are Exact, RegularExpression`. */
export function notSupported(what: string, value: string, known: readonly string[] = VALUE_TYPES): string {
  return `${what} ${shown(value)} is not supported; there are ${known.join(', ')}`;
}

const VALUE_TYPES = ['Exact', 'RegularExpression'];

/** Collects what is not supported. */
export function collectUnsupported(): { readonly found: Unsupported[]; readonly report: ReportUnsupported } {
  const found: Unsupported[] = [];
  return { found, report: (path, reason) => void found.push({ kind: 'unsupported', path, reason }) };
}

/** Faults of a route's rules as a whole: names that are there twice, and more than 128 matches. */
export function reviewRules(
  rules: readonly { readonly name?: string; readonly matches: readonly unknown[] }[],
  context: z.RefinementCtx,
): void {
  const names = new Set<string>();
  for (const [index, { name }] of rules.entries()) {
    if (name !== undefined && names.has(name))
      context.addIssue({ code: 'custom', path: [index, 'name'], message: `${shown(name)} is there twice` });
    if (name !== undefined) names.add(name);
  }
  const matches = rules.reduce((sum, rule) => sum + rule.matches.length, 0);
  if (matches > 128) context.addIssue(`have ${matches} matches together, at most 128 are allowed`);
}

/** Host names of a route: at most so many. */
export function hostnames(most: number): z.ZodType<readonly string[]> {
  return z.array(hostnamePattern).max(most).default([]);
}
