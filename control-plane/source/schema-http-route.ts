import { z } from 'zod';
import { BACKEND_FILTERS, HTTP_FILTERS, toFilters, toSessionPersistence } from './convert-filters.ts';
import { canonicalEscapes, count, duration, pathFault, regexFault } from './gateway-words.ts';
import { defineConvertedKind, type KindDefinition } from './kind.ts';
import { repeatedNames } from './repeated-names.ts';
import type { HttpMatch, HttpRouteSpec, HttpRule, Retry } from './route-objects.ts';
import { dnsSubdomain, fields } from './schema-parts.ts';
import { filters, type WrittenFilter } from './schema-route-filters.ts';
import {
  backendRefs,
  collectUnsupported,
  GATEWAY_GROUP,
  hostnames,
  notSupported,
  parentRefs,
  type ReportUnsupported,
  reviewRules,
  toBackendRef,
  toParentRefs,
  toValueMatches,
  valueMatches,
} from './schema-route-parts.ts';
import { sessionPersistence } from './schema-session.ts';

const PATH_TYPES: ReadonlyMap<string, 'exact' | 'prefix' | 'regex'> = new Map([
  ['Exact', 'exact'],
  ['PathPrefix', 'prefix'],
  ['RegularExpression', 'regex'],
]);

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH'];

const path = fields({
  type: z.string().default('PathPrefix'),
  value: z.string().max(1024, 'is longer than 1024 characters').default('/'),
}).superRefine(({ type, value }, context) => {
  const isPath = type === 'Exact' || type === 'PathPrefix';
  const message = isPath ? pathFault(value) : undefined;
  if (message !== undefined) context.addIssue({ code: 'custom', path: ['value'], message });
});

const match = fields({
  path: path.prefault({}),
  headers: valueMatches(4096),
  queryParams: valueMatches(1024),
  method: z.string().exactOptional(),
});

type WrittenMatch = z.output<typeof match>;

const retryCode = z.int().superRefine((code, context) => {
  if (code < 400 || code > 599)
    context.addIssue(`${code} is not a status that can be retried; 400 to 599 are`);
});

const retry = fields({
  codes: z
    .array(retryCode)
    .default([])
    .superRefine((codes, context) => {
      for (const [index, code] of codes.entries())
        if (codes.indexOf(code) < index)
          context.addIssue({ code: 'custom', path: [index], message: `${code} is there twice` });
    }),
  attempts: count.default(1),
  backoff: duration.exactOptional(),
});

const timeouts = fields({
  request: duration.exactOptional(),
  backendRequest: duration.exactOptional(),
}).superRefine(({ request = 0, backendRequest = 0 }, context) => {
  const message = 'must not be longer than request, which it is a part of';
  if (request > 0 && backendRequest > request)
    context.addIssue({ code: 'custom', path: ['backendRequest'], message });
});

const rule = fields({
  name: dnsSubdomain.exactOptional(),
  matches: z.array(match).max(64).default([]),
  filters,
  backendRefs: backendRefs(filters),
  timeouts: timeouts.prefault({}),
  retry: retry.exactOptional(),
  sessionPersistence: sessionPersistence.exactOptional(),
}).superRefine((one, context) => {
  const lists = [
    { at: [] as readonly (string | number)[], list: one.filters },
    ...one.backendRefs.map((ref, index) => ({ at: ['backendRefs', index], list: ref.filters })),
  ];
  if (hasOnePrefix(one.matches)) return;
  for (const { at, list } of lists)
    for (const [index, filter] of list.entries()) {
      const field = prefixReplacement(filter);
      if (field === undefined) continue;
      const message = 'needs a rule with exactly one match, and that of a path of type PathPrefix';
      const issue = [...at, 'filters', index, field, 'path', 'replacePrefixMatch'];
      context.addIssue({ code: 'custom', path: issue, message });
    }
});

type WrittenRule = z.output<typeof rule>;

function hasOnePrefix(matches: readonly WrittenMatch[]): boolean {
  const [first, ...others] = matches;
  return others.length === 0 && (first === undefined || first.path.type === 'PathPrefix');
}

function prefixReplacement({ requestRedirect, urlRewrite }: WrittenFilter): string | undefined {
  if (requestRedirect?.path?.replacePrefixMatch !== undefined) return 'requestRedirect';
  return urlRewrite?.path?.replacePrefixMatch === undefined ? undefined : 'urlRewrite';
}

const spec = fields(
  {
    parentRefs,
    hostnames: hostnames(16),
    rules: z
      .array(rule)
      .min(1, 'is empty; leave it away, or write a rule')
      .max(16)
      .prefault([{ filters: [], backendRefs: [] }])
      .superRefine(reviewRules),
  },
  ['useDefaultGateways'],
);

function toMatch(written: WrittenMatch, at: string, report: ReportUnsupported): HttpMatch {
  const { headers, queryParams, method } = written;
  const kind = PATH_TYPES.get(written.path.type);
  if (kind === undefined)
    report(`${at}.path.type`, notSupported('type', written.path.type, [...PATH_TYPES.keys()]));
  const fault = kind === 'regex' ? regexFault(written.path.value) : undefined;
  if (fault !== undefined) report(`${at}.path.value`, fault);
  const isMethod = method !== undefined && METHODS.includes(method);
  if (method !== undefined && !isMethod) report(`${at}.method`, notSupported('method', method, METHODS));
  return {
    path:
      kind === undefined || fault !== undefined
        ? undefined
        : { kind, value: kind === 'regex' ? written.path.value : canonicalEscapes(written.path.value) },
    headers: toValueMatches(headers, { isHeader: true, path: `${at}.headers`, report }),
    queryParams: toValueMatches(queryParams, { isHeader: false, path: `${at}.queryParams`, report }),
    ...(isMethod && { method }),
  };
}

const EVERYTHING: HttpMatch = { path: { kind: 'prefix', value: '/' }, headers: [], queryParams: [] };

function toRule(written: WrittenRule, index: number, namespace: string): HttpRule {
  const at = `spec.rules[${index}]`;
  const { found, report } = collectUnsupported();
  const { request, backendRequest } = written.timeouts;
  const session =
    written.sessionPersistence &&
    toSessionPersistence(written.sessionPersistence, `${at}.sessionPersistence`, report);
  const matches = written.matches.map((one, which) => toMatch(one, `${at}.matches[${which}]`, report));
  return {
    ...(written.name !== undefined && { name: written.name }),
    matches: matches.length === 0 ? [EVERYTHING] : matches,
    filters: toFilters(written.filters, { path: `${at}.filters`, namespace, types: HTTP_FILTERS }),
    backendRefs: written.backendRefs.map((ref, which) => {
      const place = { path: `${at}.backendRefs[${which}].filters`, namespace, types: BACKEND_FILTERS };
      return toBackendRef(ref, namespace, toFilters(ref.filters, place));
    }),
    timeouts: {
      ...(request !== undefined && { requestMs: request }),
      ...(backendRequest !== undefined && { backendRequestMs: backendRequest }),
    },
    ...(written.retry && { retry: toRetry(written.retry) }),
    ...(session && { sessionPersistence: session }),
    unsupported: found,
  };
}

function toRetry({ codes, attempts, backoff }: z.output<typeof retry>): Retry {
  return { codes, attempts, ...(backoff !== undefined && { backoffMs: backoff }) };
}

function toSpec(written: z.output<typeof spec>, namespace: string): HttpRouteSpec {
  return {
    parentRefs: toParentRefs(written.parentRefs, namespace),
    hostnames: written.hostnames,
    rules: written.rules.map((one, index) => toRule(one, index, namespace)),
  };
}

/** HTTPRoute. */
export const httpRouteKind: KindDefinition = defineConvertedKind({
  kind: 'HTTPRoute',
  group: GATEWAY_GROUP,
  versions: ['v1', 'v1beta1', 'v1alpha2'],
  spec,
  convert: (written, { namespace }) => toSpec(written, namespace),
  review: (_, written) =>
    repeatedNames(written, [
      { field: 'headers', isHeader: true },
      { field: 'queryParams', isHeader: false },
    ]),
});
