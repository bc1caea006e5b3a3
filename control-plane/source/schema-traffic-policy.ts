import { z } from 'zod';
import { count, duration, regexFault } from './gateway-words.ts';
import { defineConvertedKind, type KindDefinition } from './kind.ts';
import type { Fault, TrafficPolicySpec } from './route-objects.ts';
import { dnsLabel, dnsSubdomain, fields, shown } from './schema-parts.ts';
import { GATEWAY_GROUP, toValueMatches, valueMatches } from './schema-route-parts.ts';

const GROUPS: ReadonlyMap<string, string> = new Map([
  ['Service', ''],
  ['HTTPRoute', GATEWAY_GROUP],
  ['GRPCRoute', GATEWAY_GROUP],
  ['Gateway', GATEWAY_GROUP],
]);

const target = fields({
  group: z.string().default(''),
  kind: z.enum(['Service', 'HTTPRoute', 'GRPCRoute', 'Gateway']),
  name: dnsSubdomain,
  sectionName: dnsSubdomain.exactOptional(),
}).superRefine(({ group, kind, sectionName }, context) => {
  const wanted = GROUPS.get(kind) ?? '';
  if (group !== wanted) {
    const message = `${kind} is of the group ${shown(wanted)}, not ${shown(group)}`;
    context.addIssue({ code: 'custom', path: ['group'], message });
  }
  const message = 'names a rule, so it goes with HTTPRoute and GRPCRoute only';
  if (sectionName !== undefined && (kind === 'Service' || kind === 'Gateway'))
    context.addIssue({ code: 'custom', path: ['sectionName'], message });
});

const ACCOUNT = /^([a-z0-9]([-a-z0-9]*[a-z0-9])?\/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;
const account = z.string().superRefine((text, context) => {
  const remedy = 'write namespace/name, or name for one of this namespace';
  if (!ACCOUNT.test(text)) context.addIssue(`${shown(text)} is not a service account; ${remedy}`);
});

const from = fields({
  serviceAccounts: z.array(account).max(16).default([]),
  namespaces: z.array(dnsLabel).max(16).default([]),
}).superRefine(({ serviceAccounts, namespaces }, context) => {
  const message = 'cannot stand beside serviceAccounts; write a fault of its own for them';
  if (serviceAccounts.length > 0 && namespaces.length > 0)
    context.addIssue({ code: 'custom', path: ['namespaces'], message });
});

const headerMatches = valueMatches(4096).superRefine((list, context) => {
  for (const [index, { type, name, value }] of list.entries()) {
    const fault = type === 'RegularExpression' ? regexFault(value) : undefined;
    if (fault !== undefined) context.addIssue({ code: 'custom', path: [index, 'value'], message: fault });
    if (type !== 'Exact' && type !== 'RegularExpression') {
      const message = `${shown(type)} is not one of Exact, RegularExpression`;
      context.addIssue({ code: 'custom', path: [index, 'type'], message });
    }
    if (name.toLowerCase() === 'host') {
      const message = 'a fault cannot match Host; aim the policy at the Service or the route of that host';
      context.addIssue({ code: 'custom', path: [index, 'name'], message });
    }
  }
});

const delay = fields({ fixed: duration, jitter: duration.default(0) }).superRefine((one, context) => {
  if (one.fixed + one.jitter === 0) context.addIssue('delays nothing; write a time above 0s');
});

const abort = fields({
  httpStatus: z.int().min(200, 'is less than 200').max(599, 'is more than 599').exactOptional(),
  grpcStatus: z.int().min(0, 'must not be negative').max(16, 'is more than 16').exactOptional(),
}).transform(({ httpStatus, grpcStatus }, context) => {
  if (httpStatus !== undefined && grpcStatus === undefined) return { httpStatus };
  if (grpcStatus !== undefined && httpStatus === undefined) return { grpcStatus };
  context.addIssue('needs one of httpStatus and grpcStatus');
  return z.NEVER;
});

const fault = fields({
  name: dnsLabel,
  match: fields({ headers: headerMatches, from: from.prefault({}) }).prefault({ headers: [] }),
  delay: delay.exactOptional(),
  abort: abort.exactOptional(),
  responseRate: fields({ kbps: z.int().min(1, 'must be at least 1') }).exactOptional(),
  percent: z.number().min(0, 'must not be negative').max(100, 'is more than 100').default(100),
  where: z.enum(['downstream', 'upstream']).default('downstream'),
  expiresAfter: duration.optional(),
  maxConcurrent: count.exactOptional(),
}).superRefine((one, context) => {
  const required = 'is required: a fault ends by itself; write a time such as 10m';
  if (one.expiresAfter === undefined)
    context.addIssue({ code: 'custom', path: ['expiresAfter'], message: required });
  if (one.expiresAfter === 0)
    context.addIssue({ code: 'custom', path: ['expiresAfter'], message: 'must be longer than 0s' });
  if (one.delay === undefined && one.abort === undefined && one.responseRate === undefined)
    context.addIssue('does nothing; write delay, abort or responseRate');
});

/** Parts of the kind that nothing enforces yet: an object that has one is refused, and not half obeyed. */
const later = z
  .custom<undefined>((value) => value === undefined, 'comes later and is refused for now; leave it away')
  .optional();

const faults = z
  .array(fault)
  .min(1, 'is empty; write a fault, or remove the object')
  .max(16)
  .superRefine((list, context) => {
    const names = new Set<string>();
    for (const [index, { name }] of list.entries()) {
      if (names.has(name))
        context.addIssue({ code: 'custom', path: [index, 'name'], message: `${shown(name)} is there twice` });
      names.add(name);
    }
  });

const spec = fields({
  targetRefs: z.array(target).min(1, 'is empty; name what the policy is for').max(16),
  faults,
  retry: later,
  breaker: later,
  rateLimit: later,
});

function toFault(written: z.output<typeof fault>, own: string): Fault {
  const { name, match, delay: wait, abort: stop, responseRate, percent, where, maxConcurrent } = written;
  const report = (): void => undefined;
  return {
    name,
    match: {
      headers: toValueMatches(match.headers, { isHeader: true, path: '', report }),
      serviceAccounts: match.from.serviceAccounts.map((text) =>
        text.includes('/') ? text : `${own}/${text}`,
      ),
      namespaces: match.from.namespaces,
    },
    ...(wait && { delay: { fixedMs: wait.fixed, jitterMs: wait.jitter } }),
    ...(stop && { abort: stop }),
    ...(responseRate && { responseRateKbps: responseRate.kbps }),
    percent,
    where,
    expiresAfterMs: written.expiresAfter ?? 0,
    ...(maxConcurrent !== undefined && { maxConcurrent }),
  };
}

function toSpec(written: z.output<typeof spec>, own: string): TrafficPolicySpec {
  return { targetRefs: written.targetRefs, faults: written.faults.map((one) => toFault(one, own)) };
}

/** TrafficPolicy, of Tulle itself. */
export const trafficPolicyKind: KindDefinition = defineConvertedKind({
  kind: 'TrafficPolicy',
  group: 'tulle.dev',
  versions: ['v1alpha1'],
  isStrict: true,
  spec,
  convert: (written, { namespace }) => toSpec(written, namespace),
});
