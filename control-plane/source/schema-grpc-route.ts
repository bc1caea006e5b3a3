import { z } from 'zod';
import { BACKEND_FILTERS, GRPC_FILTERS, toFilters, toSessionPersistence } from './convert-filters.ts';
import { regexFault } from './gateway-words.ts';
import { defineConvertedKind, type KindDefinition } from './kind.ts';
import { repeatedNames } from './repeated-names.ts';
import type { GrpcMatch, GrpcRouteSpec, GrpcRule } from './route-objects.ts';
import { dnsSubdomain, fields, shown } from './schema-parts.ts';
import { filters } from './schema-route-filters.ts';
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

const METHOD_TYPES: ReadonlyMap<string, 'exact' | 'regex'> = new Map([
  ['Exact', 'exact'],
  ['RegularExpression', 'regex'],
]);

const SERVICE = /^\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$/i;
const METHOD = /^[A-Za-z_][A-Za-z_0-9]*$/;

const word = z.string().max(1024, 'is longer than 1024 characters');

const method = fields({
  type: z.string().default('Exact'),
  service: word.exactOptional(),
  method: word.exactOptional(),
}).superRefine((written, context) => {
  if ((written.service ?? '') === '' && (written.method ?? '') === '')
    context.addIssue('needs a service or a method');
  const forms = [
    ['service', written.service, SERVICE],
    ['method', written.method, METHOD],
  ] as const;
  for (const [field, text = '', form] of forms) {
    const message = text === '' ? undefined : wordFault(written.type, text, form);
    if (message !== undefined) context.addIssue({ code: 'custom', path: [field], message });
  }
});

function wordFault(type: string, text: string, form: RegExp): string | undefined {
  if (type !== 'Exact' || form.test(text)) return undefined;
  return `${shown(text)} is not a name in gRPC`;
}

const match = fields({ method: method.exactOptional(), headers: valueMatches(4096) });

const rule = fields({
  name: dnsSubdomain.exactOptional(),
  matches: z.array(match).max(64).default([]),
  filters,
  backendRefs: backendRefs(filters),
  sessionPersistence: sessionPersistence.exactOptional(),
});

const spec = fields(
  { parentRefs, hostnames: hostnames(16), rules: z.array(rule).max(16).default([]).superRefine(reviewRules) },
  ['useDefaultGateways'],
);

function toMatch(written: z.output<typeof match>, at: string, report: ReportUnsupported): GrpcMatch {
  const headers = toValueMatches(written.headers, { isHeader: true, path: `${at}.headers`, report });
  if (written.method === undefined) return { method: undefined, headers };
  const { type, service = '', method: name = '' } = written.method;
  const kind = METHOD_TYPES.get(type);
  if (kind === undefined) {
    report(`${at}.method.type`, notSupported('type', type, [...METHOD_TYPES.keys()]));
    return { method: undefined, headers };
  }
  if (kind === 'regex') {
    const faults = [
      ['service', regexFault(service)],
      ['method', regexFault(name)],
    ] as const;
    for (const [field, fault] of faults) if (fault !== undefined) report(`${at}.method.${field}`, fault);
    if (faults.some(([, fault]) => fault !== undefined)) return { method: undefined, headers };
  }
  return {
    method: { kind, ...(service !== '' && { service }), ...(name !== '' && { method: name }) },
    headers,
  };
}

function toRule(written: z.output<typeof rule>, index: number, namespace: string): GrpcRule {
  const at = `spec.rules[${index}]`;
  const { found, report } = collectUnsupported();
  const matches = written.matches.map((one, which) => toMatch(one, `${at}.matches[${which}]`, report));
  const session =
    written.sessionPersistence &&
    toSessionPersistence(written.sessionPersistence, `${at}.sessionPersistence`, report);
  return {
    ...(written.name !== undefined && { name: written.name }),
    matches: matches.length === 0 ? [{ method: undefined, headers: [] }] : matches,
    filters: toFilters(written.filters, { path: `${at}.filters`, namespace, types: GRPC_FILTERS }),
    backendRefs: written.backendRefs.map((ref, which) => {
      const place = { path: `${at}.backendRefs[${which}].filters`, namespace, types: BACKEND_FILTERS };
      return toBackendRef(ref, namespace, toFilters(ref.filters, place));
    }),
    ...(session && { sessionPersistence: session }),
    unsupported: found,
  };
}

function toSpec(written: z.output<typeof spec>, namespace: string): GrpcRouteSpec {
  return {
    parentRefs: toParentRefs(written.parentRefs, namespace),
    hostnames: written.hostnames,
    rules: written.rules.map((one, index) => toRule(one, index, namespace)),
  };
}

/** GRPCRoute. */
export const grpcRouteKind: KindDefinition = defineConvertedKind({
  kind: 'GRPCRoute',
  group: GATEWAY_GROUP,
  versions: ['v1', 'v1alpha2'],
  spec,
  convert: (written, { namespace }) => toSpec(written, namespace),
  review: (_, written) => repeatedNames(written, [{ field: 'headers', isHeader: true }]),
});
