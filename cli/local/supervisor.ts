import { closeSync, existsSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ControlPlaneStatus } from '#control-plane/status.ts';
import { CliError, describeError } from '../cli-error.ts';
import { callSocket } from '../unix-http.ts';
import { readSigningAuthority } from './authority-problems.ts';
import { signalCgroup } from './cgroups.ts';
import { readNodeEnrolment } from './enrolment.ts';
import type { FabricNode } from './fabric.ts';
import { askAllHandedOver } from './handed-over.ts';
import { emptyInventory, type PodRecord, type RecordedProcess, saveInventory } from './inventory.ts';
import { serveJson } from './json-server.ts';
import { boundLogs } from './log-files.ts';
import { hostNameServers, meshProcesses, type ProcessSettings } from './mesh-processes.ts';
import { composeStatus, type MeshStatus, pendingParts, type StatusSources } from './mesh-status.ts';
import type { WorkloadRef } from './names.ts';
import { noteWaiting, whyUnseen } from './outages.ts';
import { Pods } from './pods.ts';
import { endProcess } from './process-signal.ts';
import { askShortages } from './shortage-problems.ts';
import { SocketLinks } from './socket-links.ts';
import { controlPlaneSocket, nodeRunFolder, type StateFolder, supervisorSocket } from './state-folder.ts';
import { SupervisedProcess } from './supervised-process.ts';
import { supervisorRoutes } from './supervisor-routes.ts';
import { wantedWaypointsFile } from './waypoint-files.ts';
import { reportWaypoints } from './waypoint-report.ts';
import { isSettled } from './waypoint-status.ts';
import { Waypoints } from './waypoints.ts';

/** Time that waypoints have when there is no ztunnel any more. */
const WAYPOINT_LAST_MS = 1_000;
/** Time that the control plane has to make the roots. */
const BUNDLE_TIMEOUT_MS = 30_000;
/** Time that processes have to drain which are no part of the mesh any more. */
const OTHERS_GRACE_MS = 10_000;
/** Pause before what could not be replaced is tried again, each time at the cost of a second process: doubles. */
const FIRST_RENEWAL_PAUSE_MS = 2_000;
const LONGEST_RENEWAL_PAUSE_MS = 30_000;
/** How often logs are looked at, and what could not be written is tried again. */
const UPKEEP_MS = 5_000;

/** What a supervisor takes over: a fabric that stands, and workloads that live. */
export interface SupervisorOptions {
  readonly state: StateFolder;
  readonly nodes: readonly FabricNode[];
  /** Namespaces of the fabric. */
  readonly namespaces: readonly string[];
  readonly adopted: readonly PodRecord[];
  /** Processes of the mesh that live. */
  readonly running: readonly RecordedProcess[];
  readonly files: readonly string[];
  readonly svidTtl: string;
  readonly capture: ProcessSettings['capture'];
}

/** Runs a mesh's processes and keeps its workloads, and answers on run/tulle.sock. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #hostNetnsFd: number;
  readonly #pods: Pods;
  /** All but those of waypoints. */
  readonly #processes: readonly SupervisedProcess[];
  readonly #waypoints: Waypoints;
  readonly #links = new SocketLinks();
  #report: ControlPlaneStatus | undefined;
  #waiting: ReadonlyMap<string, number> = new Map();
  #closeSocket: (() => Promise<void>) | undefined;
  #renewing: Promise<void> = Promise.resolve();
  readonly #ending = new AbortController();
  #saveFailure: string | undefined;
  #logFailure: string | undefined;
  readonly #upkeep: NodeJS.Timeout;

  /** Starts nothing yet: see {@link start}. Ended by {@link stop}. */
  constructor(options: SupervisorOptions) {
    this.#options = options;
    const { state, nodes, files, svidTtl, capture } = options;
    this.#hostNetnsFd = openSync('/proc/self/ns/net', 'r');
    this.#pods = new Pods(state, nodes, () => this.#save());
    const settings: ProcessSettings = {
      state,
      files,
      svidTtl,
      nodes,
      capture,
      hostNetnsFd: this.#hostNetnsFd,
      nameServers: hostNameServers(),
    };
    this.#processes = meshProcesses(settings).map((spec) => new SupervisedProcess(spec, () => this.#save()));
    this.#waypoints = new Waypoints({
      settings,
      pods: this.#pods,
      hasLeft: (pod) => this.#hasLeft(pod),
      onChange: () => this.#save(),
      onGone: (process) => this.#links.forget(process),
    });
    this.#upkeep = setInterval(() => this.#lookAfter(), UPKEEP_MS);
  }

  /** What the mesh cannot do without: all processes but those of waypoints. */
  get processes(): readonly SupervisedProcess[] {
    return this.#processes;
  }

  get pods(): Pods {
    return this.#pods;
  }

  /**
   * Takes over the processes that live, starts all others, and the socket.
   * @throws CliError when the authority is not there in time, or the signal aborts before.
   */
  async start(stop: AbortSignal): Promise<void> {
    const { state, nodes, adopted, running } = this.#options;
    for (const { name } of nodes) {
      mkdirSync(nodeRunFolder(state, name), { recursive: true, mode: 0o700 });
      mkdirSync(join(state.path, 'logs', name), { recursive: true, mode: 0o700 });
    }
    this.#pods.adopt(adopted);
    for (const process of this.#processes) {
      process.adopt(running.filter(({ name }) => name === process.spec.name));
    }
    this.#waypoints.adopt(adopted, running);
    this.#endOthers(running);
    await this.#startProcesses(stop);
    this.#waypoints.follow();
    const routes = supervisorRoutes({
      state,
      pods: this.#pods,
      processes: this.#processes,
      waypoints: this.#waypoints,
      status: () => this.status(),
    });
    this.#closeSocket = await serveJson(supervisorSocket(state), routes);
    this.#renewing = this.#renew();
  }

  /** Ends those that nobody has taken over, as of a node that is no more. */
  #endOthers(running: readonly RecordedProcess[]): void {
    const taken = new Set(
      this.#allProcesses().flatMap((one) => one.recorded.map(({ process }) => process.pid)),
    );
    for (const { process } of running) {
      if (!taken.has(process.pid)) void endProcess(process, OTHERS_GRACE_MS);
    }
  }

  /** The control plane first: the others verify it with the bundle of roots that it makes when there is none yet. */
  async #startProcesses(stop: AbortSignal): Promise<void> {
    const [controlPlane, ...others] = this.#processes;
    if (controlPlane === undefined) return;
    if (controlPlane.isOutdated) await controlPlane.stop();
    if (controlPlane.state.kind !== 'running') {
      // Of an earlier mesh: this one's control plane says what it wants.
      rmSync(wantedWaypointsFile(this.#options.state), { force: true });
      controlPlane.start();
    }
    await this.#waitForBundle(controlPlane, stop);
    const agents = others.filter((one) => !isZtunnel(one) && one.isOutdated);
    // What a node agent has put in place stays while there is none.
    await Promise.all(agents.map((agent) => agent.stop()));
    for (const process of others) process.start();
    this.#save();
  }

  async #waitForBundle(controlPlane: SupervisedProcess, stop: AbortSignal): Promise<void> {
    const bundle = join(this.#options.state.path, 'ca', 'bundle.pem');
    const deadline = performance.now() + BUNDLE_TIMEOUT_MS;
    while (!existsSync(bundle) && controlPlane.state.kind === 'running' && !stop.aborted) {
      if (performance.now() > deadline) {
        const { spec } = controlPlane;
        throw new CliError(
          `${spec.name} has not made ${bundle} within ${BUNDLE_TIMEOUT_MS / 1000} s (log: ${spec.logFile})`,
        );
      }
      await delay(10);
    }
  }

  /**
   * What carries traffic and runs other code or settings than would be started now, or hangs, is replaced without a gap, as often as
   * it takes; a control plane that hangs is started anew.
   */
  async #renew(): Promise<void> {
    const [controlPlane] = this.#processes;
    if (await controlPlane?.isStuck()) {
      await controlPlane?.stop();
      controlPlane?.start();
    }
    const { signal } = this.#ending;
    let pauseMs = FIRST_RENEWAL_PAUSE_MS;
    while (!signal.aborted) {
      const ztunnels = await Promise.all(this.#processes.filter(isZtunnel).map((one) => one.renew()));
      if ((await this.#waypoints.renew()) && ztunnels.every(Boolean)) return;
      await delay(pauseMs, undefined, { signal }).catch(() => undefined);
      pauseMs = Math.min(pauseMs * 2, LONGEST_RENEWAL_PAUSE_MS);
    }
  }

  /** `status -o json`. */
  async status(): Promise<MeshStatus> {
    return composeStatus(await this.#sources());
  }

  /** What is still waited for; nothing when the mesh is ready. */
  async pending(): Promise<readonly string[]> {
    return pendingParts(await this.#sources());
  }

  /**
   * Lets the ztunnels and the waypoints drain, then ends everything else. Workloads and the fabric stay, for the next `up` or
   * for `down`.
   */
  async stop(): Promise<void> {
    await this.#closeSocket?.();
    clearInterval(this.#upkeep);
    this.#ending.abort();
    const ztunnels = this.#processes.filter(isZtunnel).map((process) => process.stop());
    const waypoints = this.#waypoints.stop();
    await Promise.all(ztunnels);
    await Promise.race([waypoints, delay(WAYPOINT_LAST_MS, undefined, { ref: false })]);
    // Nothing comes to a waypoint any more, whatever it waits for.
    for (const { spec } of this.#waypoints.processes) signalCgroup(spec.cgroup, 'SIGKILL');
    await waypoints;
    await Promise.all(this.#processes.filter((one) => !isZtunnel(one)).map((process) => process.stop()));
    await this.#renewing;
    this.#pods.close();
    closeSync(this.#hostNetnsFd);
  }

  /** Ends every process at once, as a last resort beside {@link stop}. */
  kill(): void {
    for (const { spec } of this.#allProcesses()) signalCgroup(spec.cgroup, 'SIGKILL');
  }

  #allProcesses(): readonly SupervisedProcess[] {
    return [...this.#processes, ...this.#waypoints.processes];
  }

  async #sources(): Promise<StatusSources> {
    const { state, nodes } = this.#options;
    await this.#askControlPlane();
    // What the control plane wanted when it answered is known from here on, so that nothing is ready too early.
    this.#waypoints.sync();
    const [handedOver, shortages, processes, waypoints] = await Promise.all([
      askAllHandedOver(state, nodes),
      askShortages(state, nodes),
      Promise.all(
        [...this.#processes, ...this.#waypoints.replicas.map((one) => one.process)].map(async (process) => ({
          ready: await process.isReady(),
          name: process.spec.name,
          state: process.state,
          restarts: process.restarts,
          downSince: process.downSince,
          notRenewed: process.notRenewed,
        })),
      ),
      reportWaypoints(this.#waypoints, (record) => this.#pods.describe(record)),
    ]);
    const pods = this.#pods.list().map((record) => this.#pods.describe(record));
    const enrolment = new Map(nodes.map(({ name }) => [name, readNodeEnrolment(state, name)]));
    const nowMs = Date.now();
    this.#waiting = noteWaiting(this.#waiting, { pods, enrolment, nowMs });
    return {
      nowMs,
      mesh: state.mesh,
      nodes,
      processes,
      waypoints,
      // What the ztunnels inherit.
      workers: Number(process.env['ZTUNNEL_WORKER_THREADS'] ?? 1),
      handedOver,
      authority: readSigningAuthority(state),
      shortages,
      pods,
      enrolment,
      waitingSince: this.#waiting,
      whyUnseen: whyUnseen(processes.find(({ name }) => name === 'control-plane')),
      controlPlane: this.#report,
      supervisor: this.#ownProblems(),
    };
  }

  #ownProblems(): StatusSources['supervisor'] {
    const { failure } = this.#waypoints;
    return [
      ...(this.#saveFailure === undefined
        ? []
        : [{ message: this.#saveFailure, effect: 'the next tulle up would not know what runs now' }]),
      ...(this.#logFailure === undefined
        ? []
        : [{ message: this.#logFailure, effect: 'logs grow, or older ones are lost' }]),
      ...(this.#pods.failure === undefined
        ? []
        : [{ message: this.#pods.failure, effect: 'the mesh is not told how its workloads are' }]),
      ...(failure === undefined ? [] : [{ message: failure, effect: 'waypoints stay as they are' }]),
    ];
  }

  /** While it does not answer, what it said last stands. */
  async #askControlPlane(): Promise<boolean> {
    try {
      const socketPath = controlPlaneSocket(this.#options.state);
      const { status, body } = await callSocket({ socketPath, path: '/status', timeoutMs: 5_000 });
      // Written by a process of this very version.
      if (status === 200) this.#report = body as ControlPlaneStatus;
      return status === 200;
    } catch {
      return false; // It is down, which its process state shows.
    }
  }

  /** Whether every client of the control plane knows that a pod takes no connections. */
  async #hasLeft({ namespace, name }: WorkloadRef): Promise<boolean> {
    if (!(await this.#askControlPlane()) || this.#report === undefined) return false;
    const { workloads, clients } = this.#report;
    const isThere = workloads.some((one) => one.namespace === namespace && one.name === name && one.healthy);
    return !isThere && clients.filter(({ connected }) => connected).every(isSettled);
  }

  /** Notes what there is, for the next `up`. Where it cannot, as on a full disk, that is said, and tried again. */
  #save(): void {
    try {
      this.#writeInventory();
      this.#saveFailure = undefined;
    } catch (error) {
      this.#saveFailure = describeError(error);
    }
  }

  #writeInventory(): void {
    const { state, nodes, namespaces } = this.#options;
    const all = this.#allProcesses();
    const processes = all.flatMap(({ recorded }) => recorded);
    saveInventory(state, { ...emptyInventory(), nodes, namespaces, processes, pods: this.#pods.list() });
    for (const process of all) this.#links.follow(process);
  }

  #lookAfter(): void {
    if (this.#saveFailure !== undefined) this.#save();
    this.#logFailure = boundLogs(join(this.#options.state.path, 'logs'));
  }
}

function isZtunnel({ spec }: SupervisedProcess): boolean {
  return spec.name.startsWith('ztunnel/');
}
