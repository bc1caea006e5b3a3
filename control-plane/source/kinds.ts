import type { KindDefinition } from './kind.ts';
import { coreKinds } from './schema-core.ts';
import { gatewayKinds } from './schema-gateway.ts';
import { networkingKinds } from './schema-networking.ts';
import { securityKinds } from './schema-security.ts';
import { trafficPolicyKind } from './schema-traffic-policy.ts';

/** Every kind that is read, by name; no two groups share one. */
export const KINDS: ReadonlyMap<string, KindDefinition> = new Map(
  [coreKinds, gatewayKinds, networkingKinds, securityKinds, [trafficPolicyKind]]
    .flat()
    .map((kind) => [kind.kind, kind]),
);

/** Groups of which every kind is known: another name in them is misspelt. */
export const CLOSED_GROUPS: ReadonlySet<string> = new Set(['security.istio.io', 'tulle.dev']);

/** Kinds that share the name of one that is read, and are something else. */
export const NAMESAKES: ReadonlySet<string> = new Set([
  'networking.istio.io/Gateway',
  'serving.knative.dev/Service',
]);
