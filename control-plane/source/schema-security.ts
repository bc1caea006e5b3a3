import { z } from 'zod';
import type { Fault } from './faults.ts';
import { defineKind, type KindDefinition } from './kind.ts';
import type {
  AuthorizationPolicyObject,
  MtlsMode,
  PeerAuthenticationObject,
  PolicyRule,
  RequestAuthenticationObject,
  Selector,
  TargetRef,
} from './objects.ts';
import { conditionKeyFault, conditionValueFault, patternFaults } from './policy-words.ts';
import { dnsSubdomain, fields, filledText, ipBlock, labels, portText, shown, texts } from './schema-parts.ts';

const VERSIONS = ['v1', 'v1beta1'];

/** `matchLabels` alone, as Istio has it. */
const selector: z.ZodType<Selector> = fields({ matchLabels: labels.default(new Map()) });

const KINDS_OF_TARGETS: ReadonlyMap<string, string> = new Map([
  ['Gateway', 'gateway.networking.k8s.io'],
  ['GatewayClass', 'gateway.networking.k8s.io'],
  ['Service', ''],
  ['ServiceEntry', 'networking.istio.io'],
]);

/** What a policy is attached to instead of selecting workloads. */
export const targetRef: z.ZodType<TargetRef> = fields({
  group: z.string().default(''),
  kind: z.enum(['Gateway', 'GatewayClass', 'Service', 'ServiceEntry']),
  name: dnsSubdomain,
  namespace: z.string().exactOptional(),
}).superRefine(({ kind, group }, context) => {
  const wanted = KINDS_OF_TARGETS.get(kind);
  if (group === wanted) return;
  const message = `${kind} is of the group ${shown(wanted ?? '')}, not ${shown(group)}`;
  context.addIssue({ code: 'custom', path: ['group'], message });
});

const blocks = z.array(ipBlock).default([]);
const words = texts.default([]);

const ACCOUNT = /^([a-z0-9]([-a-z0-9]*[a-z0-9])?\/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;
const account = z.string().superRefine((text, context) => {
  if (!ACCOUNT.test(text))
    context.addIssue(
      `${shown(text)} is not a service account; write namespace/name, or name for one of this namespace`,
    );
});
const accounts = z.array(account).max(16).default([]);

const source = fields({
  principals: words,
  notPrincipals: words,
  requestPrincipals: words,
  notRequestPrincipals: words,
  namespaces: words,
  notNamespaces: words,
  serviceAccounts: accounts,
  notServiceAccounts: accounts,
  ipBlocks: blocks,
  notIpBlocks: blocks,
  remoteIpBlocks: blocks,
  notRemoteIpBlocks: blocks,
  trustDomains: words,
  notTrustDomains: words,
}).superRefine((value, context) => {
  const { serviceAccounts, notServiceAccounts, principals, notPrincipals, namespaces, notNamespaces } = value;
  if (serviceAccounts.length + notServiceAccounts.length === 0) return;
  if (principals.length + notPrincipals.length + namespaces.length + notNamespaces.length === 0) return;
  const path = [serviceAccounts.length > 0 ? 'serviceAccounts' : 'notServiceAccounts'];
  const message = 'cannot stand beside principals or namespaces; write a source of its own for them';
  context.addIssue({ code: 'custom', path, message });
});

const ports = z.array(portText).default([]);

const operation = fields({
  hosts: words,
  notHosts: words,
  ports,
  notPorts: ports,
  methods: words,
  notMethods: words,
  paths: words,
  notPaths: words,
});

const condition = fields({ key: filledText, values: words, notValues: words }).superRefine(
  ({ key, values, notValues }, context) => {
    const keyFault = conditionKeyFault(key);
    if (keyFault !== undefined) return context.addIssue({ code: 'custom', path: ['key'], message: keyFault });
    if (values.length + notValues.length === 0) context.addIssue('needs values or notValues');
    for (const [field, list] of Object.entries({ values, notValues }))
      for (const [index, value] of list.entries()) {
        const message = conditionValueFault(key, value);
        if (message !== undefined) context.addIssue({ code: 'custom', path: [field, index], message });
      }
  },
);

const rule: z.ZodType<PolicyRule> = fields({
  from: z
    .array(fields({ source }).transform((entry) => entry.source))
    .max(512)
    .default([]),
  to: z
    .array(fields({ operation }).transform((entry) => entry.operation))
    .max(512)
    .default([]),
  when: z.array(condition).default([]),
});

const authorizationSpec: z.ZodType<AuthorizationPolicyObject['spec']> = fields({
  selector: selector.exactOptional(),
  targetRef: targetRef.exactOptional(),
  targetRefs: z.array(targetRef).max(16).default([]),
  action: z.enum(['ALLOW', 'DENY', 'AUDIT', 'CUSTOM']).default('ALLOW'),
  rules: z.array(rule).max(512).default([]),
  provider: fields({ name: filledText }).exactOptional(),
})
  .superRefine((spec, context) => {
    const hasTargets = spec.targetRefs.length > 0 || spec.targetRef !== undefined;
    if (spec.selector !== undefined && hasTargets)
      context.addIssue('has both a selector and targetRefs; write one policy for each');
    if (spec.action === 'CUSTOM' && spec.provider === undefined)
      context.addIssue({ code: 'custom', path: ['provider'], message: 'is required with action CUSTOM' });
    if (spec.action !== 'CUSTOM' && spec.provider !== undefined)
      context.addIssue({ code: 'custom', path: ['provider'], message: 'goes with action CUSTOM only' });
  })
  .transform(({ targetRef: single, targetRefs, provider, ...rest }) => ({
    ...rest,
    targetRefs: single === undefined ? targetRefs : [single, ...targetRefs],
    ...(provider === undefined ? {} : { provider: provider.name }),
  }));

function reviewAuthorization(policy: AuthorizationPolicyObject): readonly Fault[] {
  const { spec } = policy;
  const faults = [...patternFaults(spec.rules), ...foreignTargets(policy)];
  if (spec.rules.length === 0 && spec.action !== 'ALLOW') {
    const message = `${spec.action} without rules does nothing; for all traffic write rules: [{}]`;
    faults.push({ path: ['spec'], part: 'value', message, severity: 'warning' });
  }
  return faults;
}

/** Nobody has a say in the namespaces of others. */
function foreignTargets({
  spec,
  metadata,
}: AuthorizationPolicyObject | RequestAuthenticationObject): readonly Fault[] {
  return spec.targetRefs.flatMap(({ namespace = metadata.namespace }, index): Fault[] => {
    if (namespace === metadata.namespace) return [];
    const message = 'a target must be in the namespace of its policy; leave namespace away';
    const path = ['spec', 'targetRefs', index, 'namespace'];
    return [{ path, part: 'value', message, severity: 'error' }];
  });
}

const mtls = fields({
  mode: z.enum(['UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT']).default('UNSET'),
});

const portLevelMtls = z.record(portText, mtls).transform((modes, context) => {
  const byPort = new Map<number, MtlsMode>();
  for (const [port, { mode }] of Object.entries(modes)) byPort.set(Number(port), mode);
  if (byPort.size === 0) context.addIssue('is empty; leave it away, or name a port');
  return byPort;
});

const peerSpec: z.ZodType<PeerAuthenticationObject['spec']> = fields({
  selector: selector.exactOptional(),
  mtls: mtls.prefault({}),
  portLevelMtls: portLevelMtls.exactOptional(),
})
  .superRefine((spec, context) => {
    if (spec.portLevelMtls === undefined || (spec.selector?.matchLabels.size ?? 0) > 0) return;
    const message = 'needs a selector with labels: ports are those of workloads';
    context.addIssue({ code: 'custom', path: ['portLevelMtls'], message });
  })
  .transform(({ mtls: { mode }, portLevelMtls: byPort, ...rest }) => ({
    ...rest,
    mode,
    portLevelMtls: byPort ?? new Map<number, MtlsMode>(),
  }));

const requestSpec: z.ZodType<RequestAuthenticationObject['spec']> = fields({
  selector: selector.exactOptional(),
  targetRef: targetRef.exactOptional(),
  targetRefs: z.array(targetRef).max(16).default([]),
  jwtRules: z.array(z.unknown()).max(4096).default([]),
})
  .superRefine((spec, context) => {
    const hasTargets = spec.targetRefs.length > 0 || spec.targetRef !== undefined;
    if (spec.selector !== undefined && hasTargets)
      context.addIssue('has both a selector and targetRefs; write one object for each');
  })
  .transform(({ targetRef: single, targetRefs, ...rest }) => ({
    ...rest,
    targetRefs: single === undefined ? targetRefs : [single, ...targetRefs],
  }));

/** Kinds that say who may call whom, and how. */
export const securityKinds: readonly KindDefinition[] = [
  defineKind({
    kind: 'AuthorizationPolicy',
    group: 'security.istio.io',
    versions: VERSIONS,
    isStrict: true,
    body: { spec: authorizationSpec.prefault({}) },
    unused: ['status'],
    review: reviewAuthorization,
  }),
  defineKind({
    kind: 'PeerAuthentication',
    group: 'security.istio.io',
    versions: VERSIONS,
    isStrict: true,
    body: { spec: peerSpec.prefault({}) },
    unused: ['status'],
  }),
  defineKind({
    kind: 'RequestAuthentication',
    group: 'security.istio.io',
    versions: VERSIONS,
    body: { spec: requestSpec.prefault({}) },
    unused: ['status'],
    review: foreignTargets,
  }),
];
