import { z } from 'zod';
import type { Fault } from './faults.ts';
import { groupName, kindName } from './gateway-words.ts';
import { defineKind, type KindDefinition } from './kind.ts';
import type { GatewayClassObject, GatewayObject, Selector } from './objects.ts';
import { valueAt } from './plain-value.ts';
import type { ReferenceGrantSpec } from './route-objects.ts';
import { backendTlsKind } from './schema-backend-tls.ts';
import { grpcRouteKind } from './schema-grpc-route.ts';
import { httpRouteKind } from './schema-http-route.ts';
import { dnsLabel, dnsSubdomain, fields, filledText, labels, portNumber, shown } from './schema-parts.ts';
import { GATEWAY_GROUP } from './schema-route-parts.ts';
import { streamRouteKinds } from './schema-stream-routes.ts';

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

const parametersRef = fields({ group: groupName, kind: kindName, name: dnsSubdomain });

const infrastructure = fields({ parametersRef: parametersRef.exactOptional() }, ['labels', 'annotations']);

const gatewaySpec: z.ZodType<GatewayObject['spec']> = fields(
  {
    gatewayClassName: filledText,
    listeners: z.array(listener).max(64).default([]),
    infrastructure: infrastructure.prefault({}),
  },
  ['addresses', 'allowedListeners', 'backendTLS', 'defaultScope', 'tls'],
).transform(({ infrastructure: parts, ...rest }) => ({ ...rest, ...parts }));

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

const CONTROLLER = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+$/;

const controllerName = z.string().superRefine((text, context) => {
  if (text.length > 253 || !CONTROLLER.test(text))
    context.addIssue(`${shown(text)} is not the name of a controller, such as tulle.dev/waypoint`);
});

const gatewayClassSpec: z.ZodType<GatewayClassObject['spec']> = fields({ controllerName }, [
  'description',
  'parametersRef',
]);

const grantFrom = fields({ group: groupName, kind: kindName, namespace: dnsLabel });

const grantTo = fields({ group: groupName, kind: kindName, name: dnsSubdomain.exactOptional() });

const grantSpec: z.ZodType<ReferenceGrantSpec> = fields({
  from: z.array(grantFrom).min(1, 'is empty; name a kind and a namespace').max(16),
  to: z.array(grantTo).min(1, 'is empty; name a kind').max(16),
});

/** The Gateway API's kinds. */
export const gatewayKinds: readonly KindDefinition[] = [
  defineKind({
    kind: 'Gateway',
    group: GATEWAY_GROUP,
    versions: ['v1', 'v1beta1', 'v1alpha2'],
    body: { spec: gatewaySpec, status: gatewayStatus.prefault({}) },
    review: reviewGateway,
  }),
  defineKind({
    kind: 'GatewayClass',
    group: GATEWAY_GROUP,
    versions: ['v1', 'v1beta1', 'v1alpha2'],
    isNamespaced: false,
    body: { spec: gatewayClassSpec },
    unused: ['status'],
  }),
  defineKind({
    kind: 'ReferenceGrant',
    group: GATEWAY_GROUP,
    versions: ['v1', 'v1beta1', 'v1alpha2'],
    isStrict: true,
    body: { spec: grantSpec },
  }),
  httpRouteKind,
  grpcRouteKind,
  ...streamRouteKinds,
  backendTlsKind,
];
