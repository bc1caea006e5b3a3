import { realpathSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { CliError, describeError } from '../cli-error.ts';
import { nodeAddress } from './addresses.ts';
import { cgroupRoot, processesIn } from './cgroups.ts';
import { prepareBpffs } from './ebpf.ts';
import { buildFabric, type FabricNode } from './fabric.ts';
import { refuseBrokenPolicies } from './first-configuration.ts';
import { stopSignal } from './foreground.ts';
import {
  emptyInventory,
  loadInventory,
  loadInventoryIfWhole,
  type PodRecord,
  type RecordedProcess,
  saveInventory,
} from './inventory.ts';
import { lockForUp } from './lock.ts';
import { formatWorkloadRef, podNetns } from './names.ts';
import { listNamespaces } from './network-namespace.ts';
import { checkSocketPaths, environmentFilePath, numberNodes, writeNodeFiles } from './node-files.ts';
import { getProcess, isAlive } from './process-id.ts';
import { failedStart } from './start-failure.ts';
import { createStateFolder, type StateFolder } from './state-folder.ts';
import { formatProblem } from './status-text.ts';
import { Supervisor } from './supervisor.ts';
import { endStrays, hasRemains, removeMesh, sweepPods } from './sweep.ts';
import { requireCapabilities, requireIpv6, requireTools } from './system-tool.ts';
import { replicaOf, replicaProcessName } from './waypoint-plan.ts';

/** What `tulle up` is told. */
export interface MeshOptions {
  readonly stateDirectory: string;
  readonly files: readonly string[];
  readonly svidTtl: string;
  readonly nodes: readonly { readonly name: string; readonly external: boolean }[];
  readonly capture: 'auto' | 'ebpf' | 'nftables';
}

const POLL_MS = 50;
const REMIND_MS = 5_000;
const PROBLEMS_MS = 1_000;

/**
 * Runs a mesh until a signal asks it to end: takes over what an earlier one left, makes what is missing, starts the
 * processes, says `mesh ready`; drains at the end. A second signal ends it at once.
 * @throws CliError when it cannot be brought up.
 */
export async function runMesh(options: MeshOptions): Promise<void> {
  requireTools();
  requireCapabilities();
  requireIpv6();
  const files = options.files.map(realPathOf);
  const state = createStateFolder(options.stateDirectory);
  const lock = await lockForUp(state);
  const stop = stopSignal();
  try {
    const supervisor = await prepare(state, { ...options, files });
    try {
      await supervisor.start(stop.signal);
      if (await waitUntilReady(supervisor, stop.signal)) {
        console.log('mesh ready');
        await followProblems(supervisor, stop.signal);
      }
    } finally {
      await shutDown(state, supervisor);
    }
  } finally {
    stop.dispose();
    lock.release();
  }
}

/** Makes the fabric and the files that the processes start with. */
async function prepare(
  state: StateFolder,
  options: MeshOptions & { readonly files: readonly string[] },
): Promise<Supervisor> {
  await refuseBrokenPolicies(state, options.files);
  const before = hasRemains(state) ? loadInventory(state) : loadInventoryIfWhole(state);
  const nodes = numberNodes(options.nodes, before.nodes);
  checkSocketPaths(state, nodes);
  console.log(`state ${state.path} (on this host: ${state.mesh}-...)`);
  const ours = new Set(processesIn(cgroupRoot(state.mesh)));
  // A copied or moved folder tells of another mesh's processes, which live as well.
  const running = before.processes.filter(({ process }) => ours.has(process.pid) && isAlive(process));
  await endStrays(
    state,
    running.map(({ process }) => process),
  );
  const adopted = before.pods
    .filter((pod) => canAdopt(state, pod, nodes, running))
    .map((pod) => (pod.waypoint === undefined ? pod : { ...pod, runner: getProcess(process.pid) }));
  await sweepPods(state, adopted);
  saveInventory(state, { ...before, processes: running, pods: adopted });
  const namespaces = await buildFabric(state.mesh, nodes, new Set(before.namespaces));
  saveInventory(state, { ...emptyInventory(), nodes, namespaces, processes: running, pods: adopted });
  writeNodeFiles(state, nodes, options.svidTtl);
  for (const node of nodes)
    console.log(`node ${node.name} ${nodeAddress(node.number).v4}${describeExternal(state, node)}`);
  for (const { name, serves, process } of running) {
    if (serves) console.log(`process ${name} still runs (pid ${process.pid})`);
  }
  for (const pod of adopted.filter(({ waypoint }) => waypoint === undefined)) {
    console.log(`workload ${formatWorkloadRef(pod)} still runs`);
  }
  const { files, svidTtl, capture } = options;
  const missing = capture === 'nftables' ? undefined : prepareBpffs();
  if (missing !== undefined) console.log(`no capture by eBPF: ${missing}`);
  return new Supervisor({ state, nodes, namespaces, adopted, running, files, svidTtl, capture });
}

function describeExternal(state: StateFolder, node: FabricNode): string {
  return node.external ? ` (external: start its ztunnel with ${environmentFilePath(state, node)})` : '';
}

/** Whether a workload's `run` lives, or a waypoint's process, and its place is there. */
function canAdopt(
  state: StateFolder,
  pod: PodRecord,
  nodes: readonly FabricNode[],
  running: readonly RecordedProcess[],
): boolean {
  const replica = replicaOf(pod);
  const lives =
    replica === undefined
      ? isAlive(pod.runner)
      : running.some(({ name, serves }) => serves && name === replicaProcessName(replica));
  return (
    lives &&
    nodes.some(({ name }) => name === pod.node) &&
    listNamespaces(state.mesh).includes(podNetns(state.mesh, pod))
  );
}

/** False when it was asked to end first. */
async function waitUntilReady(supervisor: Supervisor, stop: AbortSignal): Promise<boolean> {
  let remindAt = performance.now() + REMIND_MS;
  while (!stop.aborted) {
    const pending = await supervisor.pending();
    if (pending.length === 0) return true;
    const failure = failedStart(supervisor.processes);
    if (failure !== undefined) throw failure;
    if (performance.now() > remindAt) {
      console.log(`waiting for ${pending.join(', ')}`);
      remindAt = performance.now() + REMIND_MS;
    }
    await delay(POLL_MS);
  }
  return false;
}

/** Until the signal aborts, says of each error when it comes and when it is gone. Warnings are left to `tulle status`. */
async function followProblems(supervisor: Supervisor, stop: AbortSignal): Promise<void> {
  let known: ReadonlySet<string> = new Set();
  while (!stop.aborted) {
    const now = await problemsOf(supervisor);
    for (const problem of now) if (!known.has(problem)) console.log(`problem: ${problem}`);
    for (const problem of known) if (!now.has(problem)) console.log(`solved: ${problem}`);
    known = now;
    await delay(PROBLEMS_MS, undefined, { signal: stop }).catch(() => undefined);
  }
}

async function problemsOf(supervisor: Supervisor): Promise<ReadonlySet<string>> {
  try {
    const { problems } = await supervisor.status();
    return new Set(problems.filter(({ severity }) => severity === 'error').map(formatProblem));
  } catch (error) {
    // As where no descriptor is left: that ends nothing.
    return new Set([`tulle up: cannot tell how the mesh is: ${describeError(error)}`]);
  }
}

/** Workloads that still run keep their places for the next `up`; without any, nothing of the mesh stays on the host. */
async function shutDown(state: StateFolder, supervisor: Supervisor): Promise<void> {
  console.log('draining (Ctrl-C again ends it at once)');
  const stopHurrying = onImpatience(() => supervisor.kill());
  await supervisor.stop();
  stopHurrying();
  const living = supervisor.pods.list().filter(({ runner }) => isAlive(runner));
  if (living.length === 0) {
    await removeMesh(state, loadInventoryIfWhole(state));
    console.log('mesh stopped');
    return;
  }
  console.log(
    `mesh stopped; these workloads still run, cut off: ${living.map(formatWorkloadRef).join(', ')}`,
  );
  console.log('the next tulle up takes them back, tulle down ends them');
}

/** Calls back at a second signal. One that comes with the first is the same one, passed on by npm. */
function onImpatience(hurry: () => void): () => void {
  const start = performance.now();
  const onSignal = (): void => {
    if (performance.now() - start > 1_000) hurry();
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return () => {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  };
}

function realPathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch (cause) {
    throw new CliError(`-f ${path}: there is no such file or folder`, { cause });
  }
}
