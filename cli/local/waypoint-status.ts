import type { StatusClient, StatusProblem } from '#control-plane/status.ts';
import type { StatusWaypoint, StatusXds } from '#control-plane/status-waypoints.ts';
import { formatWorkloadRef, type WorkloadRef } from './names.ts';
import { notRenewedText } from './outages.ts';
import type { ReplicaReport, WaypointsReport } from './waypoint-report.ts';

/** `waypoints[]` of the status. */
export interface WaypointStatus {
  readonly namespace: string;
  readonly name: string;
  /** Of the first replica that runs. */
  readonly pid: number | null;
  /** Whether all of its replicas are. */
  readonly ready: boolean;
  /** Of all of its replicas. */
  readonly addresses: readonly string[];
  /** `namespace/hostname` of the services that it stands before. */
  readonly serves: readonly string[];
  /** Of the newest of its processes. */
  readonly xds: readonly StatusXds[];
  readonly replicas: readonly ReplicaStatus[];
}

export interface ReplicaStatus {
  /** Of its pod. */
  readonly name: string;
  readonly node: string;
  readonly netns: string;
  readonly addresses: readonly string[];
  readonly pid: number | null;
  readonly ready: boolean;
  /** After crashes. */
  readonly restarts: number;
}

/** Every waypoint that is wanted or runs, sorted. */
export function waypointStatuses(
  report: WaypointsReport,
  known: readonly StatusWaypoint[],
): readonly WaypointStatus[] {
  const refs = new Map<string, WorkloadRef>();
  for (const { namespace, name } of [...report.wanted, ...report.replicas]) {
    refs.set(`${namespace}/${name}`, { namespace, name });
  }
  return [...refs.values()]
    .toSorted((a, b) => (formatWorkloadRef(a) < formatWorkloadRef(b) ? -1 : 1))
    .map((ref) => waypointStatus(ref, report, known));
}

/**
 * What is still waited for before all waypoints are ready, beside their processes. `known` is what the control plane says of
 * them.
 */
export function pendingReplicas(
  { wanted, replicas, problems }: WaypointsReport,
  known: readonly StatusWaypoint[],
): readonly string[] {
  return wanted
    .filter((waypoint) => !problems.some((problem) => isSame(problem, waypoint)))
    .flatMap((waypoint) => {
      const name = `waypoint/${formatWorkloadRef(waypoint)}`;
      const running = replicas.filter((one) => isSame(one, waypoint)).length;
      if (running < waypoint.replicas) return [`${name} to be started`];
      const configured = known.find((one) => isSame(one, waypoint))?.configured ?? 0;
      return configured < waypoint.replicas ? [`${name} to have its configuration`] : [];
    });
}

/** What is wrong with waypoints, and what that means for those who call. */
export function waypointProblems(
  report: WaypointsReport,
  known: readonly StatusWaypoint[],
): readonly StatusProblem[] {
  const effectFor = (waypoint: WorkloadRef): string => {
    const served = (known.find((one) => isSame(one, waypoint))?.serves ?? []).join(', ');
    if (report.replicas.some((one) => isSame(one, waypoint) && one.ready)) return 'its other replicas serve';
    return served === '' ? 'nothing is bound to it' : `requests to ${served} are refused`;
  };
  const stuck = report.problems.map((problem) => ({
    object: `Gateway ${formatWorkloadRef(problem)}`,
    message: `its waypoint cannot run: ${problem.message}`,
    severity: 'error' as const,
    effect: effectFor(problem),
  }));
  const replicas = report.replicas.flatMap((replica) => {
    const wrong = whatIsWrong(replica);
    if (wrong === undefined) return [];
    const effect = replica.ready ? 'what it does goes on' : effectFor(replica);
    return [{ object: replica.processName, ...wrong, effect }];
  });
  return [...stuck, ...replicas].map((problem) => ({ ...problem, position: '', path: '' }));
}

/** A replica that is not ready yet is starting, mostly: a warning. */
function whatIsWrong({
  state,
  ready,
  notRenewed,
}: ReplicaReport): Pick<StatusProblem, 'message' | 'severity'> | undefined {
  if (state.kind === 'stopped') return { message: 'is stopped', severity: 'error' };
  if (state.kind === 'crashed') return { message: state.how, severity: 'error' };
  // Started again, and as little use as before.
  if (!ready && state.after !== undefined) return { message: state.after, severity: 'error' };
  if (notRenewed !== undefined) return { message: notRenewedText(notRenewed, ready), severity: 'error' };
  return ready ? undefined : { message: 'is not ready', severity: 'warning' };
}

function waypointStatus(
  ref: WorkloadRef,
  { wanted, replicas }: WaypointsReport,
  known: readonly StatusWaypoint[],
): WaypointStatus {
  const own = replicas.filter((one) => isSame(one, ref)).toSorted((a, b) => a.index - b.index);
  const told = known.find((one) => isSame(one, ref));
  const count = wanted.find((one) => isSame(one, ref))?.replicas ?? 0;
  return {
    ...ref,
    pid: own.map(pidOf).find((pid) => pid !== null) ?? null,
    ready: own.length > 0 && own.length >= count && own.every(({ ready }) => ready),
    addresses: own.flatMap(({ addresses }) => addresses),
    serves: told?.serves ?? [],
    xds: told?.xds ?? [],
    replicas: own.map((replica) => ({
      name: replica.pod,
      node: replica.node,
      netns: replica.netns,
      addresses: replica.addresses,
      pid: pidOf(replica),
      ready: replica.ready,
      restarts: replica.restarts,
    })),
  };
}

/** Whether a client has said of everything that it was sent whether it takes it. */
export function isSettled({ xds }: StatusClient): boolean {
  return xds.every(({ sent, acked, rejected }) => acked + rejected.length >= sent);
}

function isSame(a: WorkloadRef, b: WorkloadRef): boolean {
  return a.namespace === b.namespace && a.name === b.name;
}

function pidOf({ state }: ReplicaReport): number | null {
  return state.kind === 'running' ? state.pid : null;
}
