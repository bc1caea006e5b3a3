import { CliError } from '../cli-error.ts';
import { callSupervisor } from '../supervisor-client.ts';
import { formatWorkloadRef, type WorkloadRef } from './names.ts';
import { netnsPath } from './network-namespace.ts';
import { startChildrenInPidNamespaceOf } from './pid-namespace.ts';
import type { PodDescription } from './pods.ts';
import { isAlive } from './process-id.ts';
import { startCommand } from './run-workload.ts';

/**
 * Runs a command inside a workload that runs, as its user and with its rights, with this process's input and output. Returns
 * its exit code.
 * @throws CliError when the mesh does not run, or there is no such workload, or it has not started.
 */
export async function execInWorkload(
  stateDirectory: string,
  ref: WorkloadRef,
  command: readonly string[],
): Promise<number> {
  // Answered by a process of this very version.
  const pod = (await callSupervisor(stateDirectory, {
    path: `/pods/${formatWorkloadRef(ref)}`,
  })) as PodDescription;
  const { init, waypoint } = pod.record;
  if (waypoint !== undefined) {
    throw new CliError(
      `${formatWorkloadRef(ref)} is a waypoint and has no place to run commands in; its network is: nsenter --net=${netnsPath(pod.netns)}`,
    );
  }
  if (init === undefined || !isAlive(init)) {
    throw new CliError(`${formatWorkloadRef(ref)} does not run yet: it waits to be in the mesh`);
  }
  await startChildrenInPidNamespaceOf(init.pid);
  return startCommand(pod, init.pid, command).ended;
}
