import {
  type GrpcRouteObject,
  type HttpRouteObject,
  objectKey,
  type TrafficPolicyObject,
} from '../../source/objects.ts';
import type { Fault, TrafficPolicySpec } from '../../source/route-objects.ts';
import type { Context } from '../context.ts';
import type { PolicyStatus } from '../policy-status.ts';
import { problemAt } from '../problems.ts';
import type { GrpcEntry, HttpEntry } from '../routes/attached.ts';
import { getOrAdd } from '../selectors.ts';
import type { ServiceInfo } from '../services.ts';
import { endOf, type FaultClock, type FaultTimes, faultKey } from './fault-times.ts';
import { type ActiveFault, type RouteFaults, writeFaults } from './faults.ts';

/** The faults of every route of a waypoint. */
export interface FaultTable {
  /** Of a service's frontend: by an entry of a route, or without one for what it does without routes. Without a service: of workloads. */
  readonly of: (info?: ServiceInfo, entry?: HttpEntry | GrpcEntry) => RouteFaults;
}

/** All faults, and what became of the policies that have them. */
export interface FaultBook {
  /** Those that hold at a waypoint, `namespace/name`. */
  readonly at: (waypoint: string) => FaultTable;
  readonly times: FaultTimes;
  /** Of every TrafficPolicy, enforced by the waypoints at which one of its faults was found so far. */
  readonly statuses: () => readonly PolicyStatus[];
}

type TargetRef = TrafficPolicySpec['targetRefs'][number];

/** Reads the TrafficPolicies, oldest first, and reports what they aim at and is not there. */
export function openFaultBook(context: Context, clock: FaultClock): FaultBook {
  const policies = context.inventory.trafficPolicies;
  const targets = new Map<string, ActiveFault[]>();
  const keys: string[] = [];
  const over = new Set<string>();
  const ends: number[] = [];
  const enforcers = new Map<string, Set<string>>();
  const statuses = policies.map((policy) => {
    const { active, ended } = findActive(policy, clock, { keys, over });
    const missing = [...checkTargets(context, policy), ...checkMatches(context, policy)];
    if (context.settings.faultsOff) reportOff(context, policy);
    else {
      ends.push(...active.map(({ expiresAtMs }) => expiresAtMs));
      for (const target of policy.spec.targetRefs)
        for (const one of active) getOrAdd(targets, targetKey(policy, target), () => []).push(one);
    }
    return toStatus(policy, [...missing, ...ended, ...(context.settings.faultsOff ? [OFF] : [])]);
  });
  const next = Math.min(...ends);
  return {
    times: { keys, over, ...(Number.isFinite(next) && { nextExpiryMs: next }) },
    statuses: () =>
      statuses.map((status) => ({ ...status, waypoints: [...(enforcers.get(status.object) ?? [])].sort() })),
    at: (waypoint) => ({
      of: (info, entry) => {
        const found = collect(targets, namesOf(waypoint, info, entry));
        for (const { policy } of found) getOrAdd(enforcers, policy, () => new Set()).add(waypoint);
        return writeFaults(found);
      },
    }),
  };
}

const OFF = 'faults are off for the whole mesh (tulle.faults)';

/** What a route goes by, the most particular first: its faults are tried first. */
function namesOf(
  waypoint: string,
  info: ServiceInfo | undefined,
  entry: HttpEntry | GrpcEntry | undefined,
): readonly string[] {
  const rule = entry?.ruleName;
  return [
    ...(entry && rule !== undefined ? [`${entry.object}/${rule}`] : []),
    ...(entry ? [entry.object] : []),
    ...(info ? [objectKey(info.object)] : []),
    `Gateway ${waypoint}`,
  ];
}

function targetKey({ metadata }: TrafficPolicyObject, { kind, name, sectionName }: TargetRef): string {
  const key = `${kind} ${metadata.namespace}/${name}`;
  return sectionName === undefined ? key : `${key}/${sectionName}`;
}

/** Each fault once, however often its policy aims at the route. */
function collect(
  targets: ReadonlyMap<string, readonly ActiveFault[]>,
  names: readonly string[],
): readonly ActiveFault[] {
  return [...new Set(names.flatMap((name) => targets.get(name) ?? []))];
}

function findActive(
  policy: TrafficPolicyObject,
  clock: FaultClock,
  { keys, over }: { readonly keys: string[]; readonly over: Set<string> },
): { readonly active: readonly ActiveFault[]; readonly ended: readonly string[] } {
  const active: ActiveFault[] = [];
  const ended: string[] = [];
  for (const fault of policy.spec.faults) {
    const key = faultKey(policy, fault);
    keys.push(key);
    const { endsAtMs, isOver } = endOf(clock, key, fault);
    if (matchesHost(fault)) continue;
    if (isOver) {
      over.add(key);
      ended.push(`fault ${fault.name} has ended, at ${new Date(endsAtMs).toISOString()}`);
    } else active.push({ fault, policy: objectKey(policy), expiresAtMs: endsAtMs });
  }
  return { active, ended };
}

/** Where a request goes to is not among the headers that a fault can see. */
function matchesHost({ match }: Fault): boolean {
  return match.headers.some(({ name }) => name.toLowerCase() === 'host');
}

function checkMatches(context: Context, policy: TrafficPolicyObject): readonly string[] {
  return policy.spec.faults.flatMap((fault, index) => {
    if (!matchesHost(fault)) return [];
    const message = `fault ${fault.name} cannot match Host; aim the policy at the service instead`;
    const path = `spec.faults[${index}].match.headers`;
    context.report(problemAt(policy, { path, message, severity: 'error', effect: 'it is not injected' }));
    return [message];
  });
}

function toStatus(policy: TrafficPolicyObject, reasons: readonly string[]): PolicyStatus {
  return {
    object: objectKey(policy),
    position: policy.position,
    broken: false,
    dryRun: false,
    ineffective: reasons.map((reason) => ({ rule: 0, reason })),
    nodes: [],
    waypoints: [],
  };
}

/** Why its targets are not there; each is reported. */
function checkTargets(context: Context, policy: TrafficPolicyObject): readonly string[] {
  return policy.spec.targetRefs.flatMap((target, index) => {
    const reason = missingTarget(context, policy, target);
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

function reportOff(context: Context, policy: TrafficPolicyObject): void {
  context.report(
    problemAt(policy, {
      path: 'spec.faults',
      message: `${OFF}: remove that setting of ConfigMap istio to have them`,
      severity: 'warning',
      effect: 'none of them is injected',
    }),
  );
}
