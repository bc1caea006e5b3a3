import { type Authorization, EMPTY_MATCH, policyKey, REQUIRE_WAYPOINT_PREFIX } from '#api/policy.ts';
import { type Service, serviceKey } from '#api/service.ts';
import type { GatewayAddress, Workload } from '#api/workload.ts';
import { principalOf } from '#certs/identity.ts';
import {
  type MeshObject,
  type ObjectKey,
  objectKey,
  type Position,
  type TargetRef,
} from '../source/objects.ts';
import { isDryRun } from './authorizations.ts';
import type { Context, Derived } from './context.ts';
import { compareText } from './inventory.ts';
import { problemAt } from './problems.ts';
import type { ServiceInfo } from './services.ts';
import { type Binding, bindService, parseBoolean } from './waypoint-binding.ts';

/** Of a Service, ServiceEntry or Namespace, as a label or an annotation: whether its waypoint may be gone round. */
export const REQUIRE_WAYPOINT = 'tulle.dev/require-waypoint';

/** Something that applies at waypoints only: where it is aimed at, and what it is. */
export interface WaypointPolicy {
  readonly object: ObjectKey;
  readonly position: Position;
  readonly namespace: string;
  readonly targetRefs: readonly TargetRef[];
}

/** Why a service may be reached through its waypoint only. */
interface Requirement {
  readonly object: ObjectKey;
  readonly position: Position;
}

/** One service behind a workload that requires its waypoint: who may connect, to which of the workload's ports. */
interface Guard {
  readonly cause: Requirement;
  readonly principals: readonly string[];
  /** Undefined: all. */
  readonly ports: readonly number[] | undefined;
}

/**
 * Workloads of services that require their waypoint get a policy that denies all others: an ordinary Authorization, so that a
 * stock ztunnel enforces it as well. Required is what a policy for waypoints aims at, and what says so by {@link REQUIRE_WAYPOINT}.
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
  if (required.size === 0) return { workloads, authorizations: [] };
  const instances = instancesByService(workloads);
  const names = new PolicyNames();
  const guarded = workloads.map((derived) => {
    const guards = guardsOf(derived.resource, services, required, instances);
    if (guards.length === 0) return derived;
    const name = names.nameOf(derived.resource.namespace, guards);
    const { authorizationPolicies } = derived.resource;
    return {
      ...derived,
      resource: { ...derived.resource, authorizationPolicies: [...authorizationPolicies, name] },
    };
  });
  return { workloads: guarded, authorizations: names.authorizations() };
}

/** Policies for waypoints, of all kinds that apply at them. Those in dry run require nothing. */
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
    ...authorizationPolicies.filter((policy) => !isDryRun(policy)),
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

/** Whether a policy is aimed at a service, or at the waypoint before it. */
export function aimsAt(
  context: Context,
  { namespace, targetRefs }: WaypointPolicy,
  info: Pick<ServiceInfo, 'object'>,
  binding: Binding,
): boolean {
  const { kind, metadata } = info.object;
  return targetRefs.some((target) => {
    const within = target.namespace ?? namespace;
    if (target.kind === kind) return within === metadata.namespace && target.name === metadata.name;
    if (binding.kind !== 'bound' && binding.kind !== 'missing') return false;
    if (target.kind === 'Gateway') return `${within}/${target.name}` === binding.key;
    if (target.kind !== 'GatewayClass' || namespace !== context.settings.rootNamespace) return false;
    return context.waypoints.byKey.get(binding.key)?.gateway.spec.gatewayClassName === target.name;
  });
}

function requirementOf(
  context: Context,
  info: ServiceInfo,
  policies: readonly WaypointPolicy[],
): Requirement | undefined {
  const { object } = info;
  // The Service of a waypoint, which its namespace's label may bind to itself.
  if (context.waypoints.byKey.has(`${object.metadata.namespace}/${object.metadata.name}`)) return undefined;
  const own = readFlag(context, object);
  if (own === false) return undefined;
  const binding = bindService(context.waypoints, object.metadata);
  if (binding.kind !== 'bound' && binding.kind !== 'missing') {
    if (own === true) reportUnbound(context, object);
    return undefined;
  }
  const at = { object: objectKey(object), position: object.position };
  if (own === true) return at;
  const namespace = context.inventory.namespaces.get(object.metadata.namespace);
  const general = namespace && readFlag(context, namespace);
  if (general === false) return undefined;
  if (general === true && namespace) return { object: objectKey(namespace), position: namespace.position };
  return policies.find((policy) => aimsAt(context, policy, info, binding));
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

/** Workloads behind each service, to know under whose identity a waypoint runs. */
function instancesByService(
  workloads: readonly Derived<Workload>[],
): ReadonlyMap<string, readonly Workload[]> {
  const byService = new Map<string, Workload[]>();
  for (const { resource } of workloads)
    for (const key of resource.services.keys()) {
      const list = byService.get(key);
      if (list === undefined) byService.set(key, [resource]);
      else list.push(resource);
    }
  return byService;
}

/**
 * What a workload is guarded by. A port that several of its services share is open to the waypoints of each; one that a service
 * without a requirement has, too, is guarded all the same.
 */
function guardsOf(
  workload: Workload,
  services: ReadonlyMap<string, ServiceInfo>,
  required: ReadonlyMap<string, Requirement>,
  instances: ReadonlyMap<string, readonly Workload[]>,
): readonly Guard[] {
  const guards = [...workload.services.keys()].sort(compareText).flatMap((key): Guard[] => {
    const cause = required.get(key);
    const service = services.get(key)?.service;
    if (cause === undefined || service === undefined) return [];
    const references = [service.waypoint, ...service.weightedWaypoints.map(({ destination }) => destination)];
    const principals = references.flatMap((reference) =>
      reference === undefined ? [] : principalsOf(reference, workload, services, instances),
    );
    return [{ cause, principals: sorted(principals), ports: targetPorts(workload, service) }];
  });
  return mergePorts(guards);
}

/** The waypoint's instances, and the identity that it has by its name while there is none. */
function principalsOf(
  { destination }: GatewayAddress,
  { trustDomain }: Workload,
  services: ReadonlyMap<string, ServiceInfo>,
  instances: ReadonlyMap<string, readonly Workload[]>,
): readonly string[] {
  const key = destination.kind === 'hostname' ? serviceKey(destination) : keyOfVip(destination.ip, services);
  const running = instances.get(key) ?? [];
  if (destination.kind !== 'hostname') return running.map(principalOf);
  const [serviceAccount = ''] = destination.hostname.split('.');
  return [...running, { trustDomain, namespace: destination.namespace, serviceAccount }].map(principalOf);
}

function keyOfVip(ip: string, services: ReadonlyMap<string, ServiceInfo>): string {
  const found = [...services.values()].find(({ service }) =>
    service.addresses.some((address) => 'ip' in address && address.ip === ip),
  );
  return found?.key ?? '';
}

function targetPorts(workload: Workload, service: Service): readonly number[] | undefined {
  const own = workload.services.get(serviceKey(service)) ?? [];
  const ports = service.ports.map(
    ({ servicePort, targetPort }) =>
      own.find((mapping) => mapping.servicePort === servicePort)?.targetPort ?? targetPort,
  );
  // A port that nobody knows the number of: all are guarded.
  return ports.includes(0) ? undefined : [...new Set(ports)].sort((a, b) => a - b);
}

/** One guard for each set of principals; of ports that have several, the principals of all. */
function mergePorts(guards: readonly Guard[]): readonly Guard[] {
  const [first, ...others] = guards;
  if (first === undefined) return [];
  if (guards.some(({ ports }) => ports === undefined) || others.length === 0)
    return [
      { cause: first.cause, principals: union(guards), ports: others.length === 0 ? first.ports : undefined },
    ];
  const ports = [...new Set(guards.flatMap((guard) => guard.ports ?? []))].sort((a, b) => a - b);
  const byPrincipals = Map.groupBy(ports, (port) =>
    union(guards.filter((guard) => guard.ports?.includes(port))).join(' '),
  );
  return [...byPrincipals].map(([principals, group]) => ({
    cause: first.cause,
    principals: principals.split(' '),
    ports: group,
  }));
}

function union(guards: readonly Guard[]): readonly string[] {
  return sorted(guards.flatMap(({ principals }) => principals));
}

function sorted(texts: readonly string[]): readonly string[] {
  return [...new Set(texts)].sort(compareText);
}

/** Names the policies: workloads that are guarded in the same way share one. */
class PolicyNames {
  readonly #byContent = new Map<string, Derived<Authorization>>();
  readonly #taken = new Set<string>();

  /** `namespace/name` of the policy with these guards. */
  nameOf(namespace: string, guards: readonly Guard[]): string {
    const content = JSON.stringify([namespace, guards.map(({ principals, ports }) => [principals, ports])]);
    const known = this.#byContent.get(content);
    if (known !== undefined) return policyKey(known.resource);
    const derived = toAuthorization(namespace, this.#unique(namespace, guards), guards);
    this.#byContent.set(content, derived);
    return policyKey(derived.resource);
  }

  authorizations(): readonly Derived<Authorization>[] {
    return [...this.#byContent.values()];
  }

  /** After the waypoints: `tulle_require_waypoint_shop_waypoint`, and a number where ports differ. */
  #unique(namespace: string, guards: readonly Guard[]): string {
    const accounts = union(guards).map((principal) => principal.split('/ns/')[1]?.replace('/sa/', '_') ?? '');
    const base = `${REQUIRE_WAYPOINT_PREFIX}${sorted(accounts).join('_')}`;
    let name = base;
    for (let count = 2; this.#taken.has(`${namespace}/${name}`); count += 1) name = `${base}_${count}`;
    this.#taken.add(`${namespace}/${name}`);
    return name;
  }
}

function toAuthorization(namespace: string, name: string, guards: readonly Guard[]): Derived<Authorization> {
  const [first] = guards;
  const rules = guards.map(({ principals, ports }) => {
    const notPrincipals = principals.map((value) => ({ kind: 'exact' as const, value }));
    const who = { matches: [{ ...EMPTY_MATCH, notPrincipals }] };
    const where = { matches: [{ ...EMPTY_MATCH, destinationPorts: ports ?? [] }] };
    return { clauses: ports === undefined ? [who] : [who, where] };
  });
  const resource: Authorization = {
    kind: 'authorization',
    name,
    namespace,
    scope: 'WORKLOAD_SELECTOR',
    action: 'DENY',
    rules,
    dryRun: false,
  };
  const origin = first?.cause ?? { object: '', position: { file: '', line: 0, column: 0 } };
  return {
    resource,
    origin: { object: origin.object, position: origin.position },
    ruleOrigins: guards.map(({ cause }) => cause.position),
  };
}
