import { objectKey, type TrafficPolicyObject } from '../../source/objects.ts';
import type { Context } from '../context.ts';
import { type PolicyStatus, waypointPolicyStatus } from '../policy-status.ts';
import { problemAt } from '../problems.ts';
import type { GrpcEntry, HttpEntry } from '../routes/attached.ts';
import { getOrAdd } from '../selectors.ts';
import type { ServiceInfo } from '../services.ts';
import { checkReach, checkTargets, formatTarget, targetKey } from './fault-targets.ts';
import { endOf, type FaultClock, type FaultTimes, faultKey } from './fault-times.ts';
import { type ActiveFault, NO_FAULTS, type RouteFaults, writeFaults } from './faults.ts';
import type { ServicesOf } from './unreached.ts';

/** The faults of every route of a waypoint. */
export interface FaultTable {
  /** Of a service's frontend: by an entry of a route, or without one for what it does without routes. Without a service: of workloads. */
  readonly of: (info?: ServiceInfo, entry?: HttpEntry | GrpcEntry) => RouteFaults;
}

/** All faults, and what became of the policies that have them. */
export interface FaultBook {
  /** Those that hold at a waypoint, `namespace/name`. */
  readonly at: (waypoint: string) => FaultTable;
  /** With those that were found at a waypoint so far. */
  readonly times: () => FaultTimes;
  /**
   * Of every TrafficPolicy, enforced by the waypoints at which one of its faults was found so far; what it is aimed at and no
   * waypoint has come upon is reported.
   */
  readonly summarize: () => readonly PolicyStatus[];
}

/** Reads the TrafficPolicies, oldest first, and reports what they aim at and is not there. */
export function openFaultBook(context: Context, clock: FaultClock, servicesOf: ServicesOf): FaultBook {
  const policies = context.inventory.trafficPolicies.map((policy) => readPolicy(context, policy, clock));
  const targets = indexTargets(policies);
  const enforcers = new Map<ActiveFault, Set<string>>();
  const reached = new Set<string>();
  return {
    at: (waypoint) => ({
      of: (info, entry) => {
        if (policies.length === 0) return NO_FAULTS;
        const names = namesOf(waypoint, info, entry);
        for (const name of names) reached.add(name);
        const found = collect(targets, names);
        for (const one of found) getOrAdd(enforcers, one, () => new Set()).add(waypoint);
        return writeFaults(found);
      },
    }),
    times: () => timesOf(policies, (fault) => enforcers.has(fault)),
    summarize: () =>
      policies.map(({ policy, active, reasons }) => {
        const waypoints = active.flatMap((one) => [...(enforcers.get(one) ?? [])]);
        const unreached = checkReach(context, policy, { servicesOf, reached });
        return waypointPolicyStatus(policy, [...reasons, ...unreached], [...new Set(waypoints)].sort());
      }),
  };
}

/** A policy, and what it comes to. */
interface ReadPolicy {
  readonly policy: TrafficPolicyObject;
  /** Of all its faults. */
  readonly keys: readonly string[];
  /** Of those that have ended. */
  readonly over: readonly string[];
  /** Faults to inject; none where they are off. */
  readonly active: readonly ActiveFault[];
  /** Why it does not do what it says. */
  readonly reasons: readonly string[];
}

function readPolicy(context: Context, policy: TrafficPolicyObject, clock: FaultClock): ReadPolicy {
  const isOff = context.settings.faultsOff;
  const read = policy.spec.faults.map((fault) => {
    const key = faultKey(policy, fault);
    return { fault, key, ...endOf(clock, key, fault) };
  });
  const ended = read.filter(({ isOver }) => isOver);
  const reasons = [
    ...checkTargets(context, policy),
    ...ended.map(
      ({ fault, endsAtMs }) => `fault ${fault.name} has ended, at ${new Date(endsAtMs).toISOString()}`,
    ),
    ...(isOff ? [OFF] : []),
  ];
  if (isOff) reportOff(context, policy);
  return {
    policy,
    keys: read.map(({ key }) => key),
    over: ended.map(({ key }) => key),
    active: read.flatMap(({ fault, key, endsAtMs, isOver }) =>
      isOver || isOff ? [] : [{ fault, key, policy: objectKey(policy), expiresAtMs: endsAtMs }],
    ),
    reasons,
  };
}

function timesOf(policies: readonly ReadPolicy[], isInjected: (fault: ActiveFault) => boolean): FaultTimes {
  const next = Math.min(...policies.flatMap(({ active }) => active.map(({ expiresAtMs }) => expiresAtMs)));
  return {
    keys: policies.flatMap(({ keys }) => keys),
    over: new Set(policies.flatMap(({ over }) => over)),
    ...(Number.isFinite(next) && { nextExpiryMs: next }),
    inForce: policies.flatMap(({ policy, active }) =>
      active.filter(isInjected).map(({ key, fault, policy: object, expiresAtMs }) => ({
        key,
        policy: object,
        name: fault.name,
        targets: policy.spec.targetRefs.map((target) => formatTarget(policy, target)),
        endsAtMs: expiresAtMs,
      })),
    ),
  };
}

function indexTargets(policies: readonly ReadPolicy[]): ReadonlyMap<string, readonly ActiveFault[]> {
  const targets = new Map<string, ActiveFault[]>();
  for (const { policy, active } of policies)
    for (const target of policy.spec.targetRefs)
      getOrAdd(targets, targetKey(policy, target), () => []).push(...active);
  return targets;
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

/** Each fault once, however often its policy aims at the route. */
function collect(
  targets: ReadonlyMap<string, readonly ActiveFault[]>,
  names: readonly string[],
): readonly ActiveFault[] {
  return [...new Set(names.flatMap((name) => targets.get(name) ?? []))];
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
