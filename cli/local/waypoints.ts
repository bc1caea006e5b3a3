import { setTimeout as delay } from 'node:timers/promises';
import { CliError, describeError } from '../cli-error.ts';
import { removeCgroup } from './cgroups.ts';
import type { PodRecord, RecordedProcess } from './inventory.ts';
import { type ProcessSettings, waypointProcess } from './mesh-processes.ts';
import { formatWorkloadRef, type WorkloadRef } from './names.ts';
import type { PodRequest, Pods } from './pods.ts';
import { getProcess } from './process-id.ts';
import { SupervisedProcess } from './supervised-process.ts';
import { getUser } from './users.ts';
import {
  readWantedWaypoints,
  removeOtherTokens,
  removeWaypointSockets,
  type WantedWaypoint,
  writeWaypointFiles,
} from './waypoint-files.ts';
import {
  chooseReplicaNode,
  planReplicas,
  type ReplicaPlace,
  type ReplicaRef,
  replicaKey,
  replicaOf,
  replicaPod,
  replicaProcessName,
} from './waypoint-plan.ts';
import { waypointLabels, waypointPorts } from './waypoint-pod.ts';
import { ReadinessWatch } from './waypoint-readiness.ts';

/** What waypoints are run with. */
export interface WaypointsOptions {
  readonly settings: ProcessSettings;
  readonly pods: Pods;
  /** Whether nobody is told any more to send connections to the pod. */
  readonly hasLeft: (pod: WorkloadRef) => Promise<boolean>;
  /** Told whenever a process starts or ends, or a replica comes or goes. */
  readonly onChange: () => void;
  /** Told of a replica that is gone for good. */
  readonly onGone: (process: SupervisedProcess) => void;
}

/** A replica, from when its pod is made until all of it is gone. */
export interface Replica {
  readonly ref: ReplicaRef;
  readonly record: PodRecord;
  readonly process: SupervisedProcess;
}

/** Something that keeps a waypoint from being as it is wanted. */
export interface WaypointProblem extends WorkloadRef {
  readonly message: string;
}

const FOLLOW_INTERVAL_MS = 200;
const RETRY_MS = 1_000;
/** How long endpoints have to leave the mesh's tables before their process is ended. */
const LEAVE_TIMEOUT_MS = 3_000;
const LEAVE_POLL_MS = 25;
const START_TIMEOUT_MS = 30_000;

/** Runs what run/waypoints.json asks for: for each replica of a waypoint a pod, and a process in it. */
export class Waypoints {
  readonly #options: WaypointsOptions;
  readonly #replicas = new Map<string, Replica>();
  /** Being made or taken away: not to be touched. */
  readonly #busy = new Map<string, ReplicaRef>();
  readonly #watches = new Map<string, ReadinessWatch>();
  /** Why a replica could not be made or taken away, until that succeeds. */
  readonly #problems = new Map<string, WaypointProblem>();
  #unusable: readonly WaypointProblem[] = [];
  #failure: string | undefined;
  readonly #retryAt = new Map<string, number>();
  /** Nodes of replicas whose pods are being made. */
  readonly #places = new Map<string, ReplicaPlace>();
  /** Keys of replicas that are being taken away. */
  readonly #leaving = new Set<string>();
  readonly #work = new Set<Promise<void>>();
  #wanted: readonly WantedWaypoint[] = [];
  #timer: NodeJS.Timeout | undefined;

  /** Runs nothing yet: see {@link follow}. */
  constructor(options: WaypointsOptions) {
    this.#options = options;
  }

  /** Takes over the replicas that an earlier `up` left running, pods and processes, as they are. */
  adopt(records: readonly PodRecord[], running: readonly RecordedProcess[]): void {
    for (const record of records) {
      const ref = replicaOf(record);
      const own = ref === undefined ? [] : running.filter(({ name }) => name === replicaProcessName(ref));
      if (ref !== undefined && own.length > 0) this.#run(ref, record, own);
    }
  }

  /** Replaces those that run other code or settings than would be started now, or hang; whether nothing is left to do. */
  async renew(): Promise<boolean> {
    return (await Promise.all(this.replicas.map(({ process }) => process.renew()))).every(Boolean);
  }

  /** Follows the file until {@link stop}. */
  follow(): void {
    this.#timer = setInterval(() => this.sync(), FOLLOW_INTERVAL_MS);
    this.sync();
  }

  get wanted(): readonly WantedWaypoint[] {
    return this.#wanted;
  }

  /** Of all replicas, also those that are being taken away. */
  get processes(): readonly SupervisedProcess[] {
    return [...this.#replicas.values()].map(({ process }) => process);
  }

  /** Those that are to stay, by waypoint, then in order of their numbers. */
  get replicas(): readonly Replica[] {
    const staying = [...this.#replicas].filter(([key]) => !this.#leaving.has(key)).map(([, one]) => one);
    return staying.toSorted(
      (a, b) => formatWorkloadRef(a.ref).localeCompare(formatWorkloadRef(b.ref)) || a.ref.index - b.ref.index,
    );
  }

  get problems(): readonly WaypointProblem[] {
    return [...this.#unusable, ...this.#problems.values()];
  }

  /**
   * Reads what is wanted now, and begins to make it so. Nothing happens before {@link follow} and after {@link stop}. Where that
   * cannot be, as without descriptors, it is said, and tried again.
   */
  sync(): void {
    if (this.#timer === undefined) return;
    try {
      this.#sync();
      this.#failure = undefined;
    } catch (error) {
      this.#failure = describeError(error);
    }
  }

  /** Why what is wanted cannot be followed; undefined: it is. */
  get failure(): string | undefined {
    return this.#failure;
  }

  #sync(): void {
    const { state } = this.#options.settings;
    const wanted = readWantedWaypoints(state);
    if (wanted === undefined) return;
    this.#wanted = wanted;
    const present = [...[...this.#replicas.values()].map(({ ref }) => ref), ...this.#busy.values()];
    const { add, remove, unusable } = planReplicas(wanted, present);
    this.#unusable = unusable.map(({ waypoint, reason }) => ({ ...refOf(waypoint), message: reason }));
    const known = new Set([...add, ...present].map(replicaKey));
    for (const key of this.#problems.keys()) if (!known.has(key)) this.#solved(key);
    for (const ref of remove) if (!this.#busy.has(replicaKey(ref))) this.#do(ref, () => this.#remove(ref));
    const now = performance.now();
    for (const ref of add) {
      if ((this.#retryAt.get(replicaKey(ref)) ?? 0) <= now) this.#do(ref, () => this.#add(ref));
    }
    removeOtherTokens(state, [...wanted, ...present]);
  }

  /**
   * Stops, starts or restarts replicas. A restart takes one after the other, each with the new process beside the old one; a
   * stop lets the replica leave the endpoints first.
   * @throws CliError when one does not get ready.
   */
  async change(verb: 'stop' | 'start' | 'restart', replicas: readonly Replica[]): Promise<void> {
    if (verb === 'restart') {
      for (const { process } of replicas) await process.replace();
      return;
    }
    if (verb === 'stop') {
      await Promise.all(replicas.map((replica) => this.#retire(replica)));
      return;
    }
    for (const { process } of replicas) process.start();
    await Promise.all(replicas.map(({ process }) => process.waitUntilReady(START_TIMEOUT_MS)));
  }

  /** Ends every replica, and takes away its pod. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await Promise.all(this.#work);
    await Promise.all([...this.#replicas.values()].map(({ ref }) => this.#dismantle(ref)));
  }

  /** What is done with one replica, one thing at a time; what fails is said, and tried again. */
  #do(ref: ReplicaRef, action: () => Promise<void>): void {
    const key = replicaKey(ref);
    this.#busy.set(key, ref);
    const work = action()
      .then(() => this.#solved(key))
      .catch((error: unknown) => {
        this.#retryAt.set(key, performance.now() + RETRY_MS);
        this.#problems.set(key, { ...refOf(ref), message: describeError(error) });
      })
      .finally(() => {
        this.#busy.delete(key);
        this.#work.delete(work);
        this.#options.onChange();
      });
    this.#work.add(work);
  }

  async #add(ref: ReplicaRef): Promise<void> {
    const { settings, pods } = this.#options;
    const node = chooseReplicaNode(settings.nodes, [...pods.list(), ...this.#places.values()], ref);
    if (node === undefined) throw new CliError('there is no node to run it on');
    this.#places.set(replicaKey(ref), { namespace: ref.namespace, node, waypoint: ref.name });
    try {
      writeWaypointFiles(settings.state, ref);
      const record = await pods.add(podRequest(ref, node));
      this.#run(ref, record);
    } finally {
      this.#places.delete(replicaKey(ref));
    }
  }

  #run(ref: ReplicaRef, record: PodRecord, running: readonly RecordedProcess[] = []): void {
    const { settings, pods, onChange } = this.#options;
    const key = replicaKey(ref);
    const supervised = new SupervisedProcess(waypointProcess(settings, ref), () => {
      this.#watches.get(key)?.look();
      onChange();
    });
    supervised.adopt(running);
    this.#replicas.set(key, { ref, record, process: supervised });
    this.#watches.set(
      key,
      new ReadinessWatch(supervised, (command, ready) => pods.setWaypointState(record, command, ready)),
    );
    supervised.start();
  }

  /** First out of the endpoints, then the process drains, then the place goes. */
  async #remove(ref: ReplicaRef): Promise<void> {
    const replica = this.#replicas.get(replicaKey(ref));
    if (replica === undefined) return;
    this.#leaving.add(replicaKey(ref));
    await this.#retire(replica);
    await this.#dismantle(ref);
  }

  /** Lets a replica leave the endpoints, and ends its process. */
  async #retire({ ref, process }: Replica): Promise<void> {
    const { pods, hasLeft } = this.#options;
    this.#watches.get(replicaKey(ref))?.pause();
    const pod = replicaPod(ref);
    pods.setWaypointState(pod, process.process, false);
    const deadline = performance.now() + LEAVE_TIMEOUT_MS;
    while (!(await hasLeft(pod)) && performance.now() < deadline) await delay(LEAVE_POLL_MS);
    await process.stop();
    this.#watches.get(replicaKey(ref))?.resume();
  }

  async #dismantle(ref: ReplicaRef): Promise<void> {
    const { settings, pods, onGone } = this.#options;
    const key = replicaKey(ref);
    const replica = this.#replicas.get(key);
    if (replica === undefined) return;
    await replica.process.stop();
    this.#watches.get(key)?.close();
    this.#watches.delete(key);
    this.#replicas.delete(key);
    this.#leaving.delete(key);
    onGone(replica.process);
    await removeCgroup(replica.process.spec.cgroup);
    await pods.remove(replicaPod(ref));
    removeWaypointSockets(settings.state, ref, ref.index);
  }

  #solved(key: string): void {
    this.#retryAt.delete(key);
    this.#problems.delete(key);
  }
}

function podRequest(ref: ReplicaRef, node: string): PodRequest {
  return {
    ...replicaPod(ref),
    serviceAccount: ref.serviceAccount,
    node,
    labels: waypointLabels(ref.name),
    ports: waypointPorts(),
    user: getUser('root'),
    capabilities: [],
    runner: getProcess(process.pid),
    waypoint: ref.name,
  };
}

function refOf({ namespace, name }: WorkloadRef): WorkloadRef {
  return { namespace, name };
}
