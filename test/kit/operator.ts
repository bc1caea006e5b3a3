import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { processesIn } from '#cli/local/cgroups.ts';
import type { AuthorityReport } from '#control-plane/authority-report.ts';
import { type CommandResult, runCommand } from './command.ts';
import { eventually } from './eventually.ts';
import { type Mesh, TULLE } from './mesh.ts';

/** What an operator does with the authority. */
export function ca(mesh: Mesh, ...args: readonly string[]): Promise<CommandResult> {
  return runCommand([TULLE, 'ca', ...args, '--state', mesh.state], 60_000);
}

/** `ca list -o json`. @throws Error when the control plane does not answer */
export async function authorities(mesh: Mesh): Promise<AuthorityReport> {
  const { code, stdout, stderr } = await ca(mesh, 'list', '-o', 'json');
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as AuthorityReport;
}

/** Waits until no rotation is under way. */
export async function rotated(mesh: Mesh, timeoutMs: number): Promise<void> {
  await eventually(
    'the rotation is over',
    async () => ((await authorities(mesh)).rotation ?? undefined) === undefined,
    timeoutMs,
  );
}

/** Process ids of a process of the mesh, by the name of its cgroup: `ztunnel-n1`, `node-agent-n1`, `control-plane`. */
export async function processIds(mesh: Mesh): Promise<ReadonlyMap<string, readonly number[]>> {
  const { workloads } = await mesh.status();
  return processIdsBelow(processesFolder(workloads[0]?.cgroup ?? ''));
}

/** Where the cgroups of a mesh's processes are, by that of any workload. */
export function processesFolder(workloadCgroup: string): string {
  return join(dirname(dirname(workloadCgroup)), 'processes');
}

/** As {@link processIds}, without asking the mesh. */
export function processIdsBelow(folder: string): ReadonlyMap<string, readonly number[]> {
  const names = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return new Map(names.map(({ name }) => [name, processesIn(join(folder, name))]));
}
