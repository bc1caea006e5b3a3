import type { ListenerMetadata } from '#api/envoy/metadata.ts';
import {
  type MeshObject,
  type ObjectKey,
  objectKey,
  type Position,
  type RequestAuthenticationObject,
  type TargetRef,
} from '../../source/objects.ts';
import type { Context } from '../context.ts';
import type { PolicyOutcome } from '../policies.ts';
import { type PolicyStatus, waypointPolicyStatus } from '../policy-status.ts';
import { problemAt } from '../problems.ts';
import { getOrAdd } from '../selectors.ts';
import type { ServiceInfo } from '../services.ts';
import type { Waypoint } from '../waypoints.ts';
import { canonicalClass } from './gateway-services.ts';
import { type ServicesOf, whyUnreached } from './unreached.ts';

/** What is enforced at a listener. */
export type ListenerPolicy = Pick<ListenerMetadata, 'authorizations' | 'refuse'>;

/** The policies that are aimed at services and waypoints. */
export interface PolicyBook {
  /** Those for a service at a waypoint; without a service, for what the waypoint does for workloads. */
  readonly at: (waypoint: Waypoint, info?: ServiceInfo) => ListenerPolicy;
  /**
   * What became of policies, with the waypoints that were found to enforce them so far; what they are aimed at and no waypoint has
   * come upon is reported.
   */
  readonly withWaypoints: (statuses: readonly PolicyStatus[]) => readonly PolicyStatus[];
  /** Of RequestAuthentications; as above. */
  readonly statuses: () => readonly PolicyStatus[];
}

/** A policy that is aimed at something. */
interface Aimed {
  readonly object: ObjectKey;
  readonly position: Position;
  /** Absent where it could not be read. */
  readonly source?: MeshObject;
  readonly namespace: string;
  readonly targetRefs: readonly TargetRef[];
  /** Name of its Authorization. */
  readonly resource?: string;
  readonly refuse?: string;
}

const NO_JWT = 'tokens cannot be checked yet: everything that it is aimed at is refused';

/** Opens the book. A RequestAuthentication without targets is for no waypoint, as in the field. */
export function openPolicyBook(
  context: Context,
  outcomes: readonly PolicyOutcome[],
  servicesOf: ServicesOf,
): PolicyBook {
  const tokens = context.inventory.requestAuthentications.filter(({ spec }) => spec.targetRefs.length > 0);
  for (const policy of tokens) reportTokens(context, policy);
  const policies = [...outcomes.flatMap(aimedOutcome), ...tokens.map(aimedTokens)];
  const byObject = new Map(policies.map((policy) => [policy.object, policy]));
  const byTarget = indexTargets(context, policies);
  const enforcers = new Map<string, Set<string>>();
  const reached = new Set<string>();
  const isReached = (key: string | undefined): boolean => key !== undefined && reached.has(key);
  const withWaypoints = (statuses: readonly PolicyStatus[]): readonly PolicyStatus[] =>
    statuses.map((status) => {
      const policy = byObject.get(status.object);
      const reasons = policy === undefined ? [] : checkReach(context, policy, { servicesOf, isReached });
      return {
        ...status,
        waypoints: [...(enforcers.get(status.object) ?? [])].sort(),
        ineffective: [...status.ineffective, ...reasons.map((reason) => ({ rule: 0, reason }))],
      };
    });
  return {
    at: (waypoint, info) => {
      const names = namesOf(waypoint, info);
      for (const name of names) reached.add(name);
      const found = names.flatMap((name) => byTarget.get(name) ?? []);
      for (const { object } of found) getOrAdd(enforcers, object, () => new Set()).add(waypoint.key);
      return toListenerPolicy(found);
    },
    withWaypoints,
    statuses: () => withWaypoints(tokens.map((policy) => waypointPolicyStatus(policy, [NO_JWT], []))),
  };
}

/** What waypoints are to enforce; nothing where a policy is only tried out, or marks. */
function aimedOutcome({ object, position, source, resource, aim }: PolicyOutcome): readonly Aimed[] {
  if (aim === undefined || (resource === undefined && aim.refuse === undefined)) return [];
  const what = { ...(resource !== undefined && { resource }), ...(source && { source }) };
  return [{ object, position, ...aim, ...what }];
}

function aimedTokens(policy: RequestAuthenticationObject): Aimed {
  const object = objectKey(policy);
  const { position, metadata, spec } = policy;
  const refuse = `${object}: ${NO_JWT}`;
  return {
    object,
    position,
    source: policy,
    namespace: metadata.namespace,
    targetRefs: spec.targetRefs,
    refuse,
  };
}

function indexTargets(context: Context, policies: readonly Aimed[]): ReadonlyMap<string, readonly Aimed[]> {
  const byTarget = new Map<string, Aimed[]>();
  for (const policy of policies)
    for (const key of new Set(
      policy.targetRefs.map((target) => targetKey(context, policy.namespace, target)),
    ))
      if (key !== undefined) getOrAdd(byTarget, key, () => []).push(policy);
  return byTarget;
}

/** Why a policy is not enforced at some of what it is aimed at; each is reported: nobody else would. */
function checkReach(
  context: Context,
  policy: Aimed,
  book: { readonly servicesOf: ServicesOf; readonly isReached: (key: string | undefined) => boolean },
): readonly string[] {
  const { object, position, source, namespace, targetRefs } = policy;
  return targetRefs.flatMap((target, index) => {
    if (book.isReached(targetKey(context, namespace, target))) return [];
    const { kind, name, namespace: within = namespace } = target;
    const { reason, isOpen } = whyUnreached(context, book.servicesOf, { kind, namespace: within, name });
    const path = `spec.targetRefs[${index}]`;
    context.report({
      object,
      position: source?.positionOf(path) ?? position,
      path,
      message: reason,
      severity: isOpen ? 'error' : 'warning',
      effect: isOpen ? 'it is not enforced there' : 'there is nothing to enforce it at',
    });
    return [reason];
  });
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
  const own = [`Gateway ${key}`, `GatewayClass ${canonicalClass(gateway.spec.gatewayClassName)}`];
  return info === undefined ? own : [objectKey(info.object), ...own];
}

/** A policy for a class of waypoints has to be in the root namespace. */
function targetKey(
  { settings }: Context,
  namespace: string,
  { kind, name, namespace: within = namespace }: TargetRef,
): string | undefined {
  if (kind === 'GatewayClass')
    return namespace === settings.rootNamespace ? `${kind} ${canonicalClass(name)}` : undefined;
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
