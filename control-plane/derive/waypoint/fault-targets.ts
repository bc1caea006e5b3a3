import {
  type GrpcRouteObject,
  type HttpRouteObject,
  objectKey,
  type TrafficPolicyObject,
} from '../../source/objects.ts';
import type { TrafficPolicySpec } from '../../source/route-objects.ts';
import type { Context } from '../context.ts';
import { problemAt } from '../problems.ts';
import { type ServicesOf, whyUnreached } from './unreached.ts';

type TargetRef = TrafficPolicySpec['targetRefs'][number];

/** What routes go by that a target is. */
export function targetKey({ metadata }: TrafficPolicyObject, { kind, name, sectionName }: TargetRef): string {
  const key = `${kind} ${metadata.namespace}/${name}`;
  return sectionName === undefined ? key : `${key}/${sectionName}`;
}

/** `Service pay/ledger`, `HTTPRoute pay/ledger rule canary`. */
export function formatTarget(
  { metadata }: TrafficPolicyObject,
  { kind, name, sectionName }: TargetRef,
): string {
  const target = `${kind} ${metadata.namespace}/${name}`;
  return sectionName === undefined ? target : `${target} rule ${sectionName}`;
}

/** Why targets are not there; each is reported. */
export function checkTargets(context: Context, policy: TrafficPolicyObject): readonly string[] {
  return reportTargets(context, policy, (target) => missingTarget(context, policy, target));
}

/** Why targets that are there are at no waypoint; each is reported. `reached`: the keys of those that are. */
export function checkReach(
  context: Context,
  policy: TrafficPolicyObject,
  { servicesOf, reached }: { readonly servicesOf: ServicesOf; readonly reached: ReadonlySet<string> },
): readonly string[] {
  return reportTargets(context, policy, (target) => {
    if (reached.has(targetKey(policy, target)) || missingTarget(context, policy, target) !== undefined)
      return undefined;
    const { namespace } = policy.metadata;
    return whyUnreached(context, servicesOf, { kind: target.kind, namespace, name: target.name }).reason;
  });
}

function reportTargets(
  context: Context,
  policy: TrafficPolicyObject,
  why: (target: TargetRef) => string | undefined,
): readonly string[] {
  return policy.spec.targetRefs.flatMap((target, index) => {
    const reason = why(target);
    if (reason === undefined) return [];
    const path = `spec.targetRefs[${index}]`;
    const effect = 'it has no effect there';
    context.report(problemAt(policy, { path, message: reason, severity: 'warning', effect }));
    return [reason];
  });
}

function missingTarget(
  { inventory, waypoints }: Context,
  { metadata: { namespace } }: TrafficPolicyObject,
  { kind, name, sectionName }: TargetRef,
): string | undefined {
  const isIt = (object: {
    readonly metadata: { readonly name: string; readonly namespace: string };
  }): boolean => object.metadata.name === name && object.metadata.namespace === namespace;
  const absent = `there is no ${kind} ${namespace}/${name}`;
  switch (kind) {
    case 'Service':
      return inventory.services.some(isIt) ? undefined : absent;
    case 'HTTPRoute':
      return missingRule(inventory.httpRoutes.find(isIt), sectionName, absent);
    case 'GRPCRoute':
      return missingRule(inventory.grpcRoutes.find(isIt), sectionName, absent);
    default:
      if (waypoints.byKey.has(`${namespace}/${name}`)) return undefined;
      return inventory.gateways.some(isIt) ? `Gateway ${namespace}/${name} is no waypoint` : absent;
  }
}

function missingRule(
  route: HttpRouteObject | GrpcRouteObject | undefined,
  name: string | undefined,
  absent: string,
): string | undefined {
  if (route === undefined) return absent;
  const rules: readonly { readonly name?: string }[] = route.spec.rules;
  return name === undefined || rules.some((rule) => rule.name === name)
    ? undefined
    : `${objectKey(route)} has no rule named ${name}`;
}
