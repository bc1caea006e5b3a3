import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { removePins } from '#bpf/programs.ts';
import { cgroupRoot, processesIn, removeCgroup, signalCgroup, waitUntilEmpty } from './cgroups.ts';
import { ebpfPlace } from './ebpf.ts';
import { type Inventory, inventoryFile } from './inventory.ts';
import { fabricNetns, nodeNetns, podFileName, podNetns, podNetnsPrefix, type WorkloadRef } from './names.ts';
import { deleteLink, deleteNamespaces, listNamespaces } from './network-namespace.ts';
import { findProcess, type ProcessId, sessionOf } from './process-id.ts';
import { endProcess } from './process-signal.ts';
import { isStateFolder, type StateFolder } from './state-folder.ts';

/** Time that a process nobody takes over has to end by itself. */
const STRAY_GRACE_MS = 5_000;

/** Whether a mesh has left anything on this host: after a crash of the host itself there is nothing. */
export function hasRemains({ mesh }: StateFolder): boolean {
  return listNamespaces(mesh).length > 0 || existsSync(cgroupRoot(mesh));
}

/**
 * Ends what an earlier `up` that was killed left running and nobody takes over: every process of the mesh but those that are
 * kept and their children; none of the workloads'.
 */
export async function endStrays(state: StateFolder, kept: readonly ProcessId[]): Promise<void> {
  const folder = join(cgroupRoot(state.mesh), 'processes');
  const keptSessions = new Set(kept.map(({ pid }) => pid));
  const cgroups = existsSync(folder) ? readdirSync(folder, { withFileTypes: true }) : [];
  await Promise.all(
    cgroups
      .filter((entry) => entry.isDirectory())
      .map((entry) => endStraysIn(join(folder, entry.name), keptSessions)),
  );
}

/** Every process that a supervisor starts begins a session. */
async function endStraysIn(cgroup: string, keptSessions: ReadonlySet<number>): Promise<void> {
  const strays = processesIn(cgroup).filter((pid) => !keptSessions.has(sessionOf(pid) ?? pid));
  await Promise.all(
    strays.flatMap((pid) => findProcess(pid) ?? []).map((process) => endProcess(process, STRAY_GRACE_MS)),
  );
  if (processesIn(cgroup).length === 0) await removeCgroup(cgroup);
}

/** Removes what is left of workloads, but for those that are kept. */
export async function sweepPods(state: StateFolder, kept: readonly WorkloadRef[]): Promise<void> {
  const cgroups = join(cgroupRoot(state.mesh), 'pods');
  const keptFiles = new Set(kept.map(podFileName));
  const stale = existsSync(cgroups) ? readdirSync(cgroups, { withFileTypes: true }) : [];
  await Promise.all(
    stale
      .filter((entry) => entry.isDirectory() && !keptFiles.has(entry.name))
      .map((entry) => removeCgroup(join(cgroups, entry.name))),
  );
  const keptNamespaces = new Set(kept.map((pod) => podNetns(state.mesh, pod)));
  const prefix = podNetnsPrefix(state.mesh);
  await deleteNamespaces(
    listNamespaces(state.mesh).filter((name) => name.startsWith(prefix) && !keptNamespaces.has(name)),
  );
  const pods = join(state.path, 'pods');
  for (const file of existsSync(pods) ? readdirSync(pods) : []) {
    if (!keptFiles.has(file.split('.', 1)[0] ?? '')) rmSync(join(pods, file), { force: true });
  }
}

/** Asks every workload's processes to end, and waits for them a while. */
export async function endWorkloads(state: StateFolder, graceMs: number): Promise<void> {
  const cgroup = join(cgroupRoot(state.mesh), 'pods');
  signalCgroup(cgroup, 'SIGTERM');
  await waitUntilEmpty(cgroup, graceMs);
}

/**
 * Removes everything of a mesh but what its state folder keeps for the next time (authority, tokens, configuration, logs):
 * processes, workloads, eBPF programs, cgroups, links, namespaces, sockets. Found by name, so it works whatever was recorded. Nobody else
 * may be using the state. Returns the namespaces that were there.
 */
export async function removeMesh(state: StateFolder, inventory: Inventory): Promise<readonly string[]> {
  await endStrays(state, []);
  await removeCgroup(join(cgroupRoot(state.mesh), 'processes'));
  const ebpf = ebpfPlace(state.mesh);
  await removeCgroup(ebpf.cgroup);
  const namespaces = listNamespaces(state.mesh);
  // Links first: a namespace that somebody else is in lives on without its name.
  await removeLinks(state, inventory, namespaces);
  await deleteNamespaces(namespaces);
  // Last: a workload that does not want to end is held to the mesh for as long as it lives.
  removePins(ebpf.directory);
  const files = ['pods', 'nodes', 'run'].map((name) => join(state.path, name));
  // Somebody may have deleted the folder and made another one.
  if (isStateFolder(state.path)) {
    for (const path of [...files, inventoryFile(state)]) rmSync(path, { recursive: true, force: true });
  }
  return namespaces;
}

async function removeLinks(
  state: StateFolder,
  inventory: Inventory,
  present: readonly string[],
): Promise<void> {
  const bridge = fabricNetns(state.mesh);
  if (present.includes(bridge)) {
    const ports = ['control-plane', ...inventory.nodes.map(({ number }) => `node-${number}`)];
    await Promise.all(ports.map((port) => deleteLink(bridge, port)));
  }
  await Promise.all(
    inventory.pods
      .filter(({ node }) => present.includes(nodeNetns(state.mesh, node)))
      .map(({ node, number }) => deleteLink(nodeNetns(state.mesh, node), `pod-${number}`)),
  );
}
