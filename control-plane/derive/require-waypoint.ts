import type { Authorization } from '#api/policy.ts';
import type { GatewayAddress, Workload } from '#api/workload.ts';
import {
  type MeshObject,
  type ObjectKey,
  objectKey,
  type Position,
  type TargetRef,
} from '../source/objects.ts';
import { isDryRun } from './authorizations.ts';
import type { Context, Derived } from './context.ts';
import { problemAt } from './problems.ts';
import type { ServiceInfo } from './services.ts';
import { canonicalClass, isOwnGateway } from './waypoint/gateway-services.ts';
import { type Binding, bindService, parseBoolean } from './waypoint-binding.ts';
import {
  type GuardBook,
  GuardPolicies,
  indexPrincipals,
  mergeGuards,
  ownGuard,
  type Requirement,
  serviceGuards,
} from './waypoint-guards.ts';

/** Of a Service, ServiceEntry, Namespace or workload, as a label or an annotation: whether its waypoint may be gone round. */
export const REQUIRE_WAYPOINT = 'tulle.dev/require-waypoint';

/** Something that applies at waypoints only: where it is aimed at, and what it is. */
export interface WaypointPolicy {
  readonly object: ObjectKey;
  readonly position: Position;
  readonly namespace: string;
  readonly targetRefs: readonly TargetRef[];
}

/**
 * Workloads that may be reached through their waypoint only, for themselves or as part of a service, get a policy that denies all
 * others: an ordinary Authorization, so that a stock ztunnel enforces it as well. Required is what a policy for waypoints aims at,
 * and what says so by {@link REQUIRE_WAYPOINT}.
 */
export function requireWaypoints(
  context: Context,
  services: ReadonlyMap<string, ServiceInfo>,
  workloads: readonly Derived<Workload>[],
  policies: readonly WaypointPolicy[],
): {
  readonly workloads: readonly Derived<Workload>[];
  readonly authorizations: readonly Derived<Authorization>[];
} {
  const required = new Map<string, Requirement>();
  for (const info of services.values()) {
    const requirement = requirementOf(context, info, policies);
    if (requirement !== undefined) required.set(info.key, requirement);
  }
  const book: GuardBook = { services, required, principalsOf: indexPrincipals(services, workloads) };
  const names = new GuardPolicies(context.settings.trustDomain);
  const guarded = workloads.map((derived) => {
    const { resource } = derived;
    const cause = requirementOfWorkload(context, derived, policies);
    const guards = [...ownGuard(resource, cause, book), ...serviceGuards(resource, book)];
    if (guards.length === 0) return derived;
    const name = names.nameOf(resource.namespace, mergeGuards(guards));
    const authorizationPolicies = [...resource.authorizationPolicies, name];
    return { ...derived, resource: { ...resource, authorizationPolicies } };
  });
  return { workloads: guarded, authorizations: names.authorizations() };
}

/** Policies for waypoints, of all kinds that apply at them. Those that deny nothing, in dry run or for audits, require nothing. */
export function waypointPolicies(
  context: Context,
  broken: readonly {
    readonly namespace: string;
    readonly name: string;
    readonly kind: string;
    readonly position: Position;
    readonly targetRefs?: readonly TargetRef[];
  }[],
): readonly WaypointPolicy[] {
  const { authorizationPolicies, requestAuthentications } = context.inventory;
  const read = [
    ...authorizationPolicies.filter((policy) => !isDryRun(policy) && policy.spec.action !== 'AUDIT'),
    ...requestAuthentications,
  ].map((policy) => ({
    object: objectKey(policy),
    position: policy.position,
    namespace: policy.metadata.namespace,
    targetRefs: policy.spec.targetRefs,
  }));
  const unread = broken.map(({ kind, namespace, name, position, targetRefs = [] }) => ({
    object: objectKey({ kind, metadata: { namespace, name } }),
    position,
    namespace,
    targetRefs,
  }));
  return [...read, ...unread].filter(({ targetRefs }) => targetRefs.length > 0);
}

function aimsAtService(
  context: Context,
  policy: WaypointPolicy,
  { object: { kind, metadata } }: ServiceInfo,
  waypoint: string,
): boolean {
  const isNamed = ({ namespace = policy.namespace, ...target }: TargetRef): boolean =>
    target.kind === kind && namespace === metadata.namespace && target.name === metadata.name;
  return policy.targetRefs.some(isNamed) || aimsAtWaypoint(context, policy, waypoint);
}

function aimsAtWaypoint(
  { waypoints, settings }: Context,
  { namespace, targetRefs }: WaypointPolicy,
  waypoint: string,
): boolean {
  return targetRefs.some((target) => {
    if (target.kind === 'Gateway') return `${target.namespace ?? namespace}/${target.name}` === waypoint;
    if (target.kind !== 'GatewayClass' || namespace !== settings.rootNamespace) return false;
    const gateway = waypoints.byKey.get(waypoint)?.gateway;
    return (
      gateway !== undefined && canonicalClass(gateway.spec.gatewayClassName) === canonicalClass(target.name)
    );
  });
}

/** Why a service may be reached through its waypoint only. */
function requirementOf(
  context: Context,
  info: ServiceInfo,
  policies: readonly WaypointPolicy[],
): Requirement | undefined {
  const { object } = info;
  const binding = bindService(context.waypoints, object.metadata);
  if (isOfWaypoint(context, object, binding)) return undefined;
  const own = readFlag(context, object);
  if (own === false) return undefined;
  if (binding.kind !== 'bound' && binding.kind !== 'missing') {
    if (own === true) reportUnbound(context, object);
    return undefined;
  }
  const requirement =
    own === true
      ? asRequirement(object)
      : requirementAround(context, object.metadata.namespace, () =>
          policies.find((policy) => aimsAtService(context, policy, info, binding.key)),
        );
  if (requirement !== undefined && info.service.addresses.length === 0 && object.kind === 'Service')
    reportHeadless(context, object, requirement);
  return requirement;
}

/** The Service of a waypoint, which its namespace's label may bind to another one, or to itself. */
function isOfWaypoint({ waypoints }: Context, { metadata }: MeshObject, binding: Binding): boolean {
  const key = `${metadata.namespace}/${metadata.name}`;
  const waypoint = waypoints.byKey.get(key);
  if (waypoint === undefined) return false;
  return isOwnGateway(waypoint.gateway) || (binding.kind === 'bound' && binding.key === key);
}

/** Why a workload that has a waypoint of its own may be reached through it only. */
function requirementOfWorkload(
  context: Context,
  { resource: { waypoint }, source }: Derived<Workload>,
  policies: readonly WaypointPolicy[],
): Requirement | undefined {
  if (waypoint === undefined || source === undefined) return undefined;
  const own = readFlag(context, source);
  if (own !== undefined) return own ? asRequirement(source) : undefined;
  return requirementAround(context, source.metadata.namespace, () => {
    const key = keyOfWaypoint(context, waypoint);
    return policies.find((policy) => aimsAtWaypoint(context, policy, key));
  });
}

/** What the namespace says, or else a policy. */
function requirementAround(
  context: Context,
  name: string,
  findPolicy: () => WaypointPolicy | undefined,
): Requirement | undefined {
  const namespace = context.inventory.namespaces.get(name);
  const flag = namespace && readFlag(context, namespace);
  if (flag === undefined) return findPolicy();
  return flag && namespace ? asRequirement(namespace) : undefined;
}

function asRequirement(object: MeshObject): Requirement {
  return { object: objectKey(object), position: object.position };
}

/** `namespace/name` of the Gateway with that address; of one that is not there, by what its address is assumed to be. */
function keyOfWaypoint({ waypoints }: Context, address: GatewayAddress): string {
  const text = JSON.stringify(address);
  for (const waypoint of waypoints.byKey.values())
    if (JSON.stringify(waypoint.address) === text) return waypoint.key;
  const { destination } = address;
  if (destination.kind === 'address') return '';
  return `${destination.namespace}/${destination.hostname.split('.')[0] ?? ''}`;
}

function readFlag(context: Context, object: MeshObject): boolean | undefined {
  const { labels, annotations } = object.metadata;
  const written = labels.get(REQUIRE_WAYPOINT) ?? annotations.get(REQUIRE_WAYPOINT);
  if (written === undefined) return undefined;
  const value = parseBoolean(written);
  if (value !== undefined) return value;
  const place = labels.has(REQUIRE_WAYPOINT) ? 'labels' : 'annotations';
  context.report(
    problemAt(object, {
      path: `metadata.${place}["${REQUIRE_WAYPOINT}"]`,
      message: `${JSON.stringify(written)} is neither true nor false`,
      severity: 'error',
      effect: 'the waypoint is required',
    }),
  );
  return true;
}

function reportUnbound(context: Context, object: MeshObject): void {
  context.report(
    problemAt(object, {
      path: '',
      message: `${REQUIRE_WAYPOINT} is true, and no waypoint is bound to it (label istio.io/use-waypoint)`,
      severity: 'warning',
      effect: 'it is reached directly',
    }),
  );
}

function reportHeadless(context: Context, object: MeshObject, { object: cause }: Requirement): void {
  context.report(
    problemAt(object, {
      path: '',
      message: `it is headless, so that callers go to its pods and not to its waypoint, which ${cause} requires; give it an address, or say ${REQUIRE_WAYPOINT}: "false"`,
      severity: 'warning',
      effect: 'connections to it are refused',
    }),
  );
}
