import { z } from 'zod';
import { callSocket } from '../unix-http.ts';
import type { WorkloadRef } from './names.ts';
import type { PodDescription } from './pods.ts';
import type { NotRenewed, ProcessState } from './supervised-process.ts';
import { replicaPod } from './waypoint-plan.ts';
import type { Replica, WaypointProblem, Waypoints } from './waypoints.ts';

/** What the supervisor and the processes themselves know of the waypoints. */
export interface WaypointsReport {
  readonly wanted: readonly (WorkloadRef & { readonly replicas: number })[];
  readonly replicas: readonly ReplicaReport[];
  readonly problems: readonly WaypointProblem[];
}

export interface ReplicaReport extends WorkloadRef {
  /** From 0. */
  readonly index: number;
  /** Of its process. */
  readonly processName: string;
  readonly pod: string;
  readonly node: string;
  readonly netns: string;
  readonly addresses: readonly string[];
  readonly state: ProcessState;
  readonly restarts: number;
  readonly ready: boolean;
  /** It should have been replaced, and could not be. */
  readonly notRenewed?: NotRenewed | undefined;
  /** Since its process started. */
  readonly splits: readonly SplitCount[];
}

/** Requests (and TCP connections) that a rule of a route sent to a backend. */
export interface SplitCount {
  /** `HTTPRoute pay/ledger`. */
  readonly object: string;
  readonly rule: number;
  /** `namespace/name:port`. */
  readonly backend: string;
  readonly requests: number;
}

const TIMEOUT_MS = 1_000;

const SPLITS: z.ZodType<{ readonly splits: readonly SplitCount[] }> = z.object({
  splits: z.array(
    z.object({ object: z.string(), rule: z.number(), backend: z.string(), requests: z.number() }),
  ),
});

/** Asks every replica. */
export async function reportWaypoints(
  { wanted, replicas, problems }: Pick<Waypoints, 'wanted' | 'replicas' | 'problems'>,
  describe: (record: Replica['record']) => PodDescription,
): Promise<WaypointsReport> {
  return {
    wanted,
    problems,
    replicas: await Promise.all(replicas.map((one) => reportReplica(one, describe))),
  };
}

async function reportReplica(
  { ref, record, process }: Replica,
  describe: (record: Replica['record']) => PodDescription,
): Promise<ReplicaReport> {
  const { netns, addresses } = describe(record);
  const [ready, splits] = await Promise.all([process.isReady(), askSplits(process)]);
  return {
    namespace: ref.namespace,
    name: ref.name,
    index: ref.index,
    processName: process.spec.name,
    pod: replicaPod(ref).name,
    node: record.node,
    netns,
    addresses,
    state: process.state,
    restarts: process.restarts,
    ready,
    notRenewed: process.notRenewed,
    splits,
  };
}

/** Nothing where nobody answers: it counts from its start anyway. */
async function askSplits({ spec, instance }: Replica['process']): Promise<readonly SplitCount[]> {
  if (spec.socket === undefined || instance === undefined) return [];
  try {
    const socketPath = spec.socket.pathOf(instance);
    const { body } = await callSocket({ socketPath, path: '/splits', timeoutMs: TIMEOUT_MS });
    return SPLITS.safeParse(body).data?.splits ?? [];
  } catch {
    return [];
  }
}
