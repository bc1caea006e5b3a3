import type { ListenerMetadata } from '#api/envoy/metadata.ts';
import { objectKey, type RequestAuthenticationObject, type TargetRef } from '../../source/objects.ts';
import type { Context } from '../context.ts';
import type { PolicyOutcome } from '../policies.ts';
import type { PolicyStatus } from '../policy-status.ts';
import { problemAt } from '../problems.ts';
import { getOrAdd } from '../selectors.ts';
import type { ServiceInfo } from '../services.ts';
import type { Waypoint } from '../waypoints.ts';

/** What is enforced at a listener. */
export type ListenerPolicy = Pick<ListenerMetadata, 'authorizations' | 'refuse'>;

/** The policies that are aimed at services and waypoints. */
export interface PolicyBook {
  /** Those for a service at a waypoint; without a service, for what the waypoint does for workloads. */
  readonly at: (waypoint: Waypoint, info?: ServiceInfo) => ListenerPolicy;
  /** What became of policies, with the waypoints that were found to enforce them so far. */
  readonly withWaypoints: (statuses: readonly PolicyStatus[]) => readonly PolicyStatus[];
  /** Of RequestAuthentications. */
  readonly statuses: () => readonly PolicyStatus[];
}

/** A policy where it is aimed at. */
interface Aimed {
  readonly object: string;
  /** Name of its Authorization. */
  readonly resource?: string;
  readonly refuse?: string;
}

const NO_JWT = 'tokens cannot be checked yet: everything that it is aimed at is refused';
const NOWHERE = 'no waypoint enforces it: nothing that it is aimed at has one';

/** Opens the book. A RequestAuthentication without targets is for no waypoint, as in the field. */
export function openPolicyBook(context: Context, outcomes: readonly PolicyOutcome[]): PolicyBook {
  const aimed = new Map<string, Aimed[]>();
  const enforcers = new Map<string, Set<string>>();
  const isAimed = new Set<string>();
  const add = (namespace: string, targetRefs: readonly TargetRef[], policy: Aimed): void => {
    isAimed.add(policy.object);
    for (const key of new Set(targetRefs.map((target) => targetKey(context, namespace, target))))
      if (key !== undefined) getOrAdd(aimed, key, () => []).push(policy);
  };
  for (const { object, resource, aim } of outcomes) {
    if (aim === undefined) continue;
    const { namespace, targetRefs, refuse } = aim;
    if (resource !== undefined || refuse !== undefined)
      add(namespace, targetRefs, {
        object,
        ...(resource !== undefined && { resource }),
        ...(refuse !== undefined && { refuse }),
      });
  }
  const tokens = context.inventory.requestAuthentications.filter(({ spec }) => spec.targetRefs.length > 0);
  for (const policy of tokens) {
    reportTokens(context, policy);
    const object = objectKey(policy);
    add(policy.metadata.namespace, policy.spec.targetRefs, { object, refuse: `${object}: ${NO_JWT}` });
  }
  const withWaypoints = (statuses: readonly PolicyStatus[]): readonly PolicyStatus[] =>
    statuses.map((status) => {
      const waypoints = [...(enforcers.get(status.object) ?? [])].sort();
      if (waypoints.length > 0 || !isAimed.has(status.object)) return { ...status, waypoints };
      return { ...status, ineffective: [...status.ineffective, { rule: 0, reason: NOWHERE }] };
    });
  return {
    at: (waypoint, info) => {
      const policies = namesOf(waypoint, info).flatMap((name) => aimed.get(name) ?? []);
      for (const { object } of policies) getOrAdd(enforcers, object, () => new Set()).add(waypoint.key);
      return toListenerPolicy(policies);
    },
    withWaypoints,
    statuses: () => withWaypoints(tokens.map(toStatus)),
  };
}

function toListenerPolicy(policies: readonly Aimed[]): ListenerPolicy {
  const authorizations = [...new Set(policies.flatMap(({ resource }) => resource ?? []))].sort();
  const refusals = [...new Set(policies.flatMap(({ refuse }) => refuse ?? []))];
  return {
    ...(authorizations.length > 0 && { authorizations }),
    ...(refusals.length > 0 && { refuse: refusals.join('; ') }),
  };
}

/** What a listener goes by. */
function namesOf({ key, gateway }: Waypoint, info: ServiceInfo | undefined): readonly string[] {
  const own = [`Gateway ${key}`, `GatewayClass ${gateway.spec.gatewayClassName}`];
  return info === undefined ? own : [objectKey(info.object), ...own];
}

/** A policy for a class of waypoints has to be in the root namespace. */
function targetKey(
  { settings }: Context,
  namespace: string,
  { kind, name, namespace: within = namespace }: TargetRef,
): string | undefined {
  if (kind === 'GatewayClass') return namespace === settings.rootNamespace ? `${kind} ${name}` : undefined;
  return `${kind} ${within}/${name}`;
}

function reportTokens(context: Context, policy: RequestAuthenticationObject): void {
  context.report(
    problemAt(policy, {
      path: 'spec.jwtRules',
      message: 'waypoints cannot check tokens yet; remove the RequestAuthentication',
      severity: 'error',
      effect: 'everything that it is aimed at is refused',
    }),
  );
}

function toStatus(policy: RequestAuthenticationObject): PolicyStatus {
  return {
    object: objectKey(policy),
    position: policy.position,
    broken: false,
    dryRun: false,
    ineffective: [{ rule: 0, reason: NO_JWT }],
    nodes: [],
    waypoints: [],
  };
}
