import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { CliError, describeError } from '../cli-error.ts';
import { nextPodNumber, podAddress, podGateway } from './addresses.ts';
import { cgroupRoot, makeCgroup, removeCgroup } from './cgroups.ts';
import { readNodeEnrolment } from './enrolment.ts';
import type { FabricNode } from './fabric.ts';
import type { PodRecord } from './inventory.ts';
import { podObject } from './kubernetes-objects.ts';
import { formatWorkloadRef, podFileName, podNetns, type WorkloadRef } from './names.ts';
import { addPodNetwork, type PodPlace, removePodNetwork } from './pod-network.ts';
import { isAlive, type ProcessId } from './process-id.ts';
import { podFile, resolverFile, type StateFolder, writeAtomic } from './state-folder.ts';

/** What `tulle run` asks for. */
export type PodRequest = Pick<
  PodRecord,
  'namespace' | 'name' | 'serviceAccount' | 'labels' | 'ports' | 'user' | 'capabilities' | 'runner'
> & {
  /** A node by name; undefined: the one with the fewest workloads that has a ztunnel of ours. */
  readonly node: string | undefined;
  /** See {@link PodRecord}. */
  readonly waypoint?: string;
};

/** How often the workloads' `tulle run` are looked after. */
const WATCH_INTERVAL_MS = 500;
const LET_GO_MS = 1_000;
const LET_GO_POLL_MS = 20;

/** A connection that waits to be accepted by a process that ends goes to the one that took its place. */
const WAYPOINT_SYSCTLS: Readonly<Record<string, string>> = { 'net/ipv4/tcp_migrate_req': '1' };

/** The workloads of this machine: makes their places, keeps their Pod objects, removes them when their `tulle run` ends. */
export class Pods {
  readonly #state: StateFolder;
  readonly #nodes: readonly FabricNode[];
  readonly #onChange: () => void;
  readonly #pods = new Map<string, PodRecord>();
  /** Being made or removed: their names are taken. */
  readonly #busy = new Map<string, PodRecord>();
  readonly #lastNumbers = new Map<string, number>();
  /** Workloads whose Pod objects the disk did not take. */
  readonly #unwritten = new Set<string>();
  #failure: string | undefined;
  readonly #watch: NodeJS.Timeout;

  /** `onChange` is told whenever the list changes. Ended by {@link close}. */
  constructor(state: StateFolder, nodes: readonly FabricNode[], onChange: () => void) {
    this.#state = state;
    this.#nodes = nodes;
    this.#onChange = onChange;
    this.#watch = setInterval(() => void this.#lookAfter(), WATCH_INTERVAL_MS);
  }

  /** In no particular order. */
  list(): readonly PodRecord[] {
    return [...this.#pods.values()];
  }

  find(ref: WorkloadRef): PodRecord | undefined {
    return this.#pods.get(formatWorkloadRef(ref));
  }

  /** Takes over workloads of an earlier `up` that still live. */
  adopt(records: readonly PodRecord[]): void {
    for (const record of records) {
      this.#pods.set(formatWorkloadRef(record), record);
      this.#lastNumbers.set(record.node, Math.max(record.number, this.#lastNumbers.get(record.node) ?? 1));
      this.#rewriteObject(record);
    }
  }

  /**
   * Makes the place of a workload: namespace, cgroup, resolver, Pod object.
   * @throws CliError when there is one of that name, or no such node, or no room.
   */
  async add(request: PodRequest): Promise<PodRecord> {
    const key = formatWorkloadRef(request);
    if (this.#pods.has(key) || this.#busy.has(key)) {
      throw new CliError(`workload ${key} runs already: end it first, or give another --name`);
    }
    const record = this.#plan(request);
    this.#busy.set(key, record);
    try {
      await this.#makePlace(record);
      this.#pods.set(key, record);
      this.#writeObject(record);
    } catch (error) {
      await this.#removePlace(record).catch(() => undefined);
      throw error;
    } finally {
      this.#busy.delete(key);
    }
    this.#onChange();
    return record;
  }

  /** Notes the processes of a workload; from now on it is ready. */
  started(ref: WorkloadRef, init: ProcessId, command: ProcessId): void {
    const record = this.#pods.get(formatWorkloadRef(ref));
    if (record === undefined) throw new CliError(`there is no workload ${formatWorkloadRef(ref)}`);
    const next = { ...record, init, command };
    this.#pods.set(formatWorkloadRef(ref), next);
    this.#rewriteObject(next);
    this.#onChange();
  }

  /** Notes the process of a waypoint's replica (undefined: none runs), and whether it may be sent connections. */
  setWaypointState(ref: WorkloadRef, command: ProcessId | undefined, ready: boolean): void {
    const record = this.#pods.get(formatWorkloadRef(ref));
    if (record === undefined || (record.command?.pid === command?.pid && record.ready === ready)) return;
    const next = { ...record, command, ready };
    this.#pods.set(formatWorkloadRef(ref), next);
    this.#rewriteObject(next);
    this.#onChange();
  }

  /** Removes a workload and all that was made for it; nothing happens when there is none. */
  async remove(ref: WorkloadRef): Promise<void> {
    const key = formatWorkloadRef(ref);
    const record = this.#pods.get(key);
    if (record === undefined) return;
    this.#pods.delete(key);
    this.#busy.set(key, record);
    this.#onChange();
    try {
      await this.#removePlace(record);
    } finally {
      this.#busy.delete(key);
    }
  }

  /** What a workload's own processes need to know. */
  describe(record: PodRecord): PodDescription {
    const { v4, v6 } = podAddress(this.#nodeOf(record).number, record.number);
    return {
      record,
      netns: podNetns(this.#state.mesh, record),
      cgroup: this.#cgroupOf(record),
      addresses: [v4, v6],
      state: this.#state.path,
      resolver: resolverFile(this.#state, record),
    };
  }

  /** Stops looking after them; they stay. */
  close(): void {
    clearInterval(this.#watch);
  }

  #plan(request: PodRequest): PodRecord {
    const node = this.#chooseNode(request.node);
    const taken = new Set(this.#podsOn(node).map((pod) => pod.number));
    const number = nextPodNumber(taken, this.#lastNumbers.get(node.name) ?? 1);
    if (number === undefined)
      throw new CliError(`node ${node.name} has no address left for another workload`);
    this.#lastNumbers.set(node.name, number);
    const { node: _, ...rest } = request;
    return { ...rest, node: node.name, number, uid: randomUUID(), createdAt: new Date().toISOString() };
  }

  #chooseNode(name: string | undefined): FabricNode {
    if (name !== undefined) {
      const node = this.#nodes.find((one) => one.name === name);
      if (node !== undefined) return node;
      throw new CliError(
        `there is no node ${name}; nodes are ${this.#nodes.map((one) => one.name).join(', ')}`,
      );
    }
    const [first] = this.#nodes
      .filter(({ external }) => !external)
      .sort((a, b) => this.#podsOn(a).length - this.#podsOn(b).length);
    if (first !== undefined) return first;
    throw new CliError('all nodes are external: name one with --node');
  }

  #podsOn(node: FabricNode): readonly PodRecord[] {
    return [...this.#pods.values(), ...this.#busy.values()].filter((pod) => pod.node === node.name);
  }

  async #makePlace(record: PodRecord): Promise<void> {
    makeCgroup(this.#cgroupOf(record));
    await addPodNetwork(this.#placeOf(record));
    writeAtomic(
      resolverFile(this.#state, record),
      resolverText(record.namespace, this.#nodeOf(record)),
      0o644,
    );
  }

  /** Its processes first: a pod whose file is gone is let go by the node agent, and whatever still ran would be free. */
  async #removePlace(record: PodRecord): Promise<void> {
    await removeCgroup(this.#cgroupOf(record));
    rmSync(podFile(this.#state, record), { force: true });
    await this.#letGo(record);
    await removePodNetwork(this.#placeOf(record));
    rmSync(resolverFile(this.#state, record), { force: true });
  }

  /**
   * Leaves the network standing until the node agent has taken the pod out, for a while: what its processes had open ends
   * with them, and whoever is at the other end has to hear of it. Without that, waypoints and ztunnels would hold their ends.
   */
  async #letGo({ uid, node }: PodRecord): Promise<void> {
    const deadline = performance.now() + LET_GO_MS;
    while (performance.now() < deadline) {
      const report = readNodeEnrolment(this.#state, node).done?.pods.find((pod) => pod.uid === uid);
      if (report === undefined || report.state === 'out') return;
      await delay(LET_GO_POLL_MS);
    }
  }

  /** Why Pod objects are not as they should be; undefined: they are. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Where the disk does not take it, it is tried again. */
  #rewriteObject(record: PodRecord): void {
    const key = formatWorkloadRef(record);
    try {
      this.#writeObject(record);
      this.#unwritten.delete(key);
    } catch (error) {
      this.#unwritten.add(key);
      this.#failure = describeError(error);
    }
  }

  async #lookAfter(): Promise<void> {
    for (const key of this.#unwritten) {
      const record = this.#pods.get(key);
      if (record === undefined) this.#unwritten.delete(key);
      else this.#rewriteObject(record);
    }
    if (this.#unwritten.size === 0) this.#failure = undefined;
    await this.#removeAbandoned();
  }

  async #removeAbandoned(): Promise<void> {
    const abandoned = this.list().filter(({ runner }) => !isAlive(runner));
    await Promise.all(abandoned.map((record) => this.remove(record).catch(() => undefined)));
  }

  #writeObject(record: PodRecord): void {
    const object = podObject(this.#state.mesh, record, this.#nodeOf(record));
    writeAtomic(podFile(this.#state, record), `${JSON.stringify(object, undefined, 1)}\n`);
  }

  #placeOf(record: PodRecord): PodPlace {
    const place = { mesh: this.#state.mesh, pod: record, node: this.#nodeOf(record), number: record.number };
    return record.waypoint === undefined ? place : { ...place, sysctls: WAYPOINT_SYSCTLS };
  }

  #cgroupOf(record: PodRecord): string {
    return join(cgroupRoot(this.#state.mesh), 'pods', podFileName(record));
  }

  #nodeOf(record: PodRecord): FabricNode {
    const node = this.#nodes.find(({ name }) => name === record.node);
    if (node === undefined) throw new TypeError(`workload on a node that is not there: ${record.node}`);
    return node;
  }
}

/** A workload's place on this host. */
export interface PodDescription {
  readonly record: PodRecord;
  readonly netns: string;
  readonly cgroup: string;
  readonly addresses: readonly string[];
  /** Path of the state folder, to hide. */
  readonly state: string;
  /** Path of its resolver configuration. */
  readonly resolver: string;
}

/** As a cluster writes it for its pods; the name server is the pod's node. */
export function resolverText(namespace: string, node: FabricNode): string {
  return [
    `nameserver ${podGateway(node.number).v4}`,
    `search ${namespace}.svc.cluster.local svc.cluster.local cluster.local`,
    'options ndots:5',
    '',
  ].join('\n');
}
