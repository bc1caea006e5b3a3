import { closeSync, existsSync, mkdirSync, openSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { ControlPlaneStatus } from '#control-plane/status.ts';
import { callSocket } from '../unix-http.ts';
import { signalCgroup } from './cgroups.ts';
import { readNodeEnrolment } from './enrolment.ts';
import type { FabricNode } from './fabric.ts';
import { emptyInventory, type PodRecord, saveInventory } from './inventory.ts';
import { serveJson } from './json-server.ts';
import { hostNameServers, meshProcesses, ztunnelSocket } from './mesh-processes.ts';
import { composeStatus, type MeshStatus, pendingParts, type StatusSources } from './mesh-status.ts';
import { Pods } from './pods.ts';
import { controlPlaneSocket, nodeRunFolder, type StateFolder, supervisorSocket } from './state-folder.ts';
import { SupervisedProcess } from './supervised-process.ts';
import { supervisorRoutes } from './supervisor-routes.ts';

/** What a supervisor takes over: a fabric that stands, and workloads that live. */
export interface SupervisorOptions {
  readonly state: StateFolder;
  readonly nodes: readonly FabricNode[];
  /** Namespaces of the fabric. */
  readonly namespaces: readonly string[];
  readonly adopted: readonly PodRecord[];
  readonly files: readonly string[];
  readonly svidTtl: string;
}

/** Runs a mesh's processes and keeps its workloads, and answers on run/tulle.sock. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #hostNetnsFd: number;
  readonly #pods: Pods;
  readonly #processes: readonly SupervisedProcess[];
  /** Instance of each ztunnel whose socket `ztunnel.sock` leads to. */
  readonly #linked = new Map<string, number>();
  #report: ControlPlaneStatus | undefined;
  #closeSocket: (() => Promise<void>) | undefined;

  /** Starts nothing yet: see {@link start}. Ended by {@link stop}. */
  constructor(options: SupervisorOptions) {
    this.#options = options;
    const { state, nodes, files, svidTtl } = options;
    this.#hostNetnsFd = openSync('/proc/self/ns/net', 'r');
    this.#pods = new Pods(state, nodes, () => this.#save());
    const settings = {
      state,
      files,
      svidTtl,
      nodes,
      hostNetnsFd: this.#hostNetnsFd,
      nameServers: hostNameServers(),
    };
    this.#processes = meshProcesses(settings).map((spec) => new SupervisedProcess(spec, () => this.#save()));
  }

  get processes(): readonly SupervisedProcess[] {
    return this.#processes;
  }

  get pods(): Pods {
    return this.#pods;
  }

  /** Starts every process and the socket. */
  async start(): Promise<void> {
    const { state, nodes, adopted } = this.#options;
    for (const { name } of nodes) {
      mkdirSync(nodeRunFolder(state, name), { recursive: true, mode: 0o700 });
      mkdirSync(join(state.path, 'logs', name), { recursive: true, mode: 0o700 });
    }
    this.#pods.adopt(adopted);
    await this.#startProcesses();
    const routes = supervisorRoutes({
      state,
      pods: this.#pods,
      processes: this.#processes,
      status: () => this.status(),
    });
    this.#closeSocket = await serveJson(supervisorSocket(state), routes);
  }

  /** The control plane first: the others verify it with the bundle of roots that it makes when there is none yet. */
  async #startProcesses(): Promise<void> {
    const [controlPlane, ...others] = this.#processes;
    controlPlane?.start();
    const bundle = join(this.#options.state.path, 'ca', 'bundle.pem');
    while (!existsSync(bundle) && controlPlane?.state.kind === 'running') await delay(10);
    for (const process of others) process.start();
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
   * Lets the ztunnels drain, then ends everything else. Workloads and the fabric stay, for the next `up` or for `down`.
   */
  async stop(): Promise<void> {
    await this.#closeSocket?.();
    this.#pods.close();
    const isZtunnel = (one: SupervisedProcess): boolean => one.spec.name.startsWith('ztunnel/');
    await Promise.all(this.#processes.filter(isZtunnel).map((process) => process.stop()));
    await Promise.all(this.#processes.filter((one) => !isZtunnel(one)).map((process) => process.stop()));
    closeSync(this.#hostNetnsFd);
  }

  /** Ends every process at once, as a last resort beside {@link stop}. */
  kill(): void {
    for (const { spec } of this.#processes) signalCgroup(spec.cgroup, 'SIGKILL');
  }

  async #sources(): Promise<StatusSources> {
    const { state, nodes } = this.#options;
    const [processes] = await Promise.all([
      Promise.all(
        this.#processes.map(async (process) => ({
          name: process.spec.name,
          state: process.state,
          restarts: process.restarts,
          ready: await process.isReady(),
        })),
      ),
      this.#askControlPlane(),
    ]);
    return {
      mesh: state.mesh,
      nodes,
      processes,
      // What the ztunnels inherit.
      workers: Number(process.env['ZTUNNEL_WORKER_THREADS'] ?? 1),
      pods: this.#pods.list().map((record) => this.#pods.describe(record)),
      enrolment: new Map(nodes.map(({ name }) => [name, readNodeEnrolment(state, name)])),
      controlPlane: this.#report,
    };
  }

  /** While it does not answer, what it said last stands. */
  async #askControlPlane(): Promise<void> {
    try {
      const socketPath = controlPlaneSocket(this.#options.state);
      const { status, body } = await callSocket({ socketPath, path: '/status', timeoutMs: 5_000 });
      // Written by a process of this very version.
      if (status === 200) this.#report = body as ControlPlaneStatus;
    } catch {
      // It is down, which its process state shows.
    }
  }

  #save(): void {
    const { state, nodes, namespaces } = this.#options;
    const processes = this.#processes.flatMap(({ spec, process }) =>
      process === undefined ? [] : [{ name: spec.name, process }],
    );
    saveInventory(state, { ...emptyInventory(), nodes, namespaces, processes, pods: this.#pods.list() });
    for (const process of this.#processes) this.#linkSocket(process);
  }

  /** `run/NODE/ztunnel.sock` leads to the socket of the instance that serves. */
  #linkSocket({ spec, instance }: SupervisedProcess): void {
    const { name } = spec;
    if (!name.startsWith('ztunnel/') || instance === undefined || this.#linked.get(name) === instance) return;
    const { state } = this.#options;
    const node = name.slice('ztunnel/'.length);
    const link = join(nodeRunFolder(state, node), 'ztunnel.sock');
    rmSync(`${link}.new`, { force: true });
    symlinkSync(basename(ztunnelSocket(state, node, instance)), `${link}.new`);
    renameSync(`${link}.new`, link);
    this.#linked.set(name, instance);
  }
}
