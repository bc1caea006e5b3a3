import { z } from 'zod';
import type { Fault } from './faults.ts';
import { defineKind, type KindDefinition } from './kind.ts';
import type { GatewayObject, RouteObject, Selector } from './objects.ts';
import { valueAt } from './plain-value.ts';
import { fields, filledText, labels, portNumber } from './schema-parts.ts';

const GROUP = 'gateway.networking.k8s.io';

/** A selector of namespaces; one with expressions cannot be told and admits none. */
const namespaceSelector = fields({
  matchLabels: labels.default(new Map()),
  matchExpressions: z.array(z.unknown()).default([]),
});

const routeNamespaces = fields({
  from: z.enum(['Same', 'All', 'Selector', 'None']).default('Same'),
  selector: namespaceSelector.exactOptional(),
});

const listener = fields(
  {
    name: filledText,
    port: portNumber,
    protocol: filledText,
    allowedRoutes: fields({ namespaces: routeNamespaces.prefault({}) }, ['kinds']).prefault({}),
  },
  ['hostname', 'tls'],
).transform(({ allowedRoutes: { namespaces }, ...rest }) => ({ ...rest, ...admission(namespaces) }));

type Admission = Pick<GatewayObject['spec']['listeners'][number], 'allowedFrom' | 'allowedSelector'>;

function admission({ from, selector }: z.output<typeof routeNamespaces>): Admission {
  if (from !== 'Selector') return { allowedFrom: from };
  if (selector === undefined || selector.matchExpressions.length > 0) return { allowedFrom: 'None' };
  const allowedSelector: Selector = { matchLabels: selector.matchLabels };
  return { allowedFrom: from, allowedSelector };
}

const gatewaySpec: z.ZodType<GatewayObject['spec']> = fields(
  { gatewayClassName: filledText, listeners: z.array(listener).max(64).default([]) },
  ['addresses', 'allowedListeners', 'backendTLS', 'defaultScope', 'infrastructure', 'tls'],
);

const gatewayStatus: z.ZodType<GatewayObject['status']> = z
  .looseObject({
    addresses: z
      .array(z.looseObject({ type: z.string().default('IPAddress'), value: filledText }))
      .default([]),
  })
  .transform(({ addresses }) => ({ addresses: addresses.map(({ type, value }) => ({ type, value })) }));

/** `matchExpressions` are not evaluated, so such a selector admits nobody. */
function reviewGateway({ spec }: GatewayObject, written: unknown): readonly Fault[] {
  const message = 'is not evaluated, so no other namespace may attach; write matchLabels';
  return spec.listeners.flatMap((_, index): Fault[] => {
    const path = ['spec', 'listeners', index, 'allowedRoutes', 'namespaces', 'selector', 'matchExpressions'];
    return valueAt(written, path) === undefined ? [] : [{ path, part: 'key', message, severity: 'warning' }];
  });
}

/** The spec as it is written. */
const anySpec: z.ZodType<unknown> = z.custom(
  (spec) => typeof spec === 'object' && spec !== null && !Array.isArray(spec),
  'must be a map',
);

function keptKind(kind: RouteObject['kind'], group: string, versions: readonly string[]): KindDefinition {
  return defineKind<RouteObject['kind']>({
    kind,
    group,
    versions,
    isNamespaced: kind !== 'GatewayClass',
    body: { spec: anySpec },
    unused: ['status'],
  });
}

/** The Gateway API's kinds, and those of others that only waypoints use. */
export const gatewayKinds: readonly KindDefinition[] = [
  defineKind({
    kind: 'Gateway',
    group: GROUP,
    versions: ['v1', 'v1beta1', 'v1alpha2'],
    body: { spec: gatewaySpec, status: gatewayStatus.prefault({}) },
    review: reviewGateway,
  }),
  keptKind('GatewayClass', GROUP, ['v1', 'v1beta1', 'v1alpha2']),
  keptKind('HTTPRoute', GROUP, ['v1', 'v1beta1', 'v1alpha2']),
  keptKind('GRPCRoute', GROUP, ['v1', 'v1alpha2']),
  keptKind('TCPRoute', GROUP, ['v1', 'v1beta1', 'v1alpha2']),
  keptKind('TLSRoute', GROUP, ['v1', 'v1beta1', 'v1alpha3', 'v1alpha2']),
  keptKind('ReferenceGrant', GROUP, ['v1', 'v1beta1', 'v1alpha2']),
  keptKind('BackendTLSPolicy', GROUP, ['v1', 'v1alpha3', 'v1alpha2']),
  keptKind('RequestAuthentication', 'security.istio.io', ['v1', 'v1beta1']),
  keptKind('TrafficPolicy', 'tulle.dev', ['v1alpha1']),
];
