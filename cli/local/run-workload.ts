import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { CliError } from '../cli-error.ts';
import { callSupervisor } from '../supervisor-client.ts';
import type { EnrolmentState } from './enrolment.ts';
import { type Enclosure, enterCommand, environmentOf, initCommand } from './enter.ts';
import { runInForeground, stopSignal } from './foreground.ts';
import { formatWorkloadRef } from './names.ts';
import { startChildrenInNewPidNamespace } from './pid-namespace.ts';
import type { PodDescription, PodRequest } from './pods.ts';

/** How long somebody is left in the dark about what is waited for. */
const SILENCE_MS = 2_000;
const POLL_MS = 20;

/**
 * Runs a command as a workload: has its place made, enters it, waits until it is in the mesh where its namespace says so,
 * and runs the command with this process's input and output. Returns its exit code.
 * @throws CliError when the mesh does not run or refuses the workload.
 */
export async function runWorkload(
  stateDirectory: string,
  request: Omit<PodRequest, 'runner' | 'node'> & { readonly node?: string },
  command: readonly string[],
): Promise<number> {
  const path = `/pods/${formatWorkloadRef(request)}`;
  const stop = stopSignal();
  // Answered by a process of this very version.
  const pod = (await callSupervisor(stateDirectory, {
    method: 'POST',
    path: '/pods',
    body: { ...request, runner: process.pid },
  })) as PodDescription;
  let init: ChildProcess | undefined;
  try {
    await startChildrenInNewPidNamespace();
    init = await startInit(pod);
    const { code } = await waitUntilInPlace(stateDirectory, path, pod, stop.signal);
    if (code !== undefined) return code;
    stop.dispose();
    const [file = '', ...args] = enterCommand(enclosureOf(pod), init.pid ?? 0, process.cwd(), command);
    const child = spawn(file, args, { stdio: 'inherit', env: environmentOf(pod.record.user, process.env) });
    const ended = runInForeground(child);
    await callSupervisor(stateDirectory, {
      method: 'POST',
      path: `${path}/started`,
      body: { init: init.pid, command: child.pid },
    }).catch(() => undefined); // The command has ended already, or the mesh is being stopped.
    return await ended;
  } finally {
    init?.kill('SIGKILL');
    // When the mesh is stopped meanwhile, the next `up` or `down` sees to the rest.
    await callSupervisor(stateDirectory, { method: 'DELETE', path }).catch(() => undefined);
  }
}

/** What it takes to enter a workload. */
export function enclosureOf({ netns, cgroup, record }: PodDescription): Enclosure {
  return { netns, cgroup, user: record.user, capabilities: record.capabilities };
}

async function startInit(pod: PodDescription): Promise<ChildProcess> {
  const [file = '', ...args] = initCommand(enclosureOf(pod), pod);
  const init = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  const ready = once(init.stdout, 'data').then(() => true);
  const ended = once(init, 'exit').then(() => false);
  if (await Promise.race([ready, ended])) {
    init.stdout.destroy();
    return init;
  }
  throw new CliError(`the place of ${formatWorkloadRef(pod.record)} could not be set up`);
}

/**
 * Waits until nothing can leave or reach the workload outside the mesh that is meant to go through it. There is no time
 * after which it would start all the same.
 */
async function waitUntilInPlace(
  stateDirectory: string,
  path: string,
  { record }: PodDescription,
  stop: AbortSignal,
): Promise<{ readonly code: number | undefined }> {
  const start = performance.now();
  let said = '';
  while (!stop.aborted) {
    const state = (await callSupervisor(stateDirectory, { path: `${path}/enrolment` })) as EnrolmentState;
    if (state.kind === 'enrolled' || state.kind === 'outside') return { code: undefined };
    const reason = state.kind === 'pending' ? state.reason : 'the control plane has not seen it yet';
    if (reason !== said && performance.now() - start > SILENCE_MS) {
      console.error(`tulle: ${formatWorkloadRef(record)} waits to be in the mesh: ${reason} (Ctrl-C ends)`);
      said = reason;
    }
    await delay(POLL_MS);
  }
  return { code: Number(stop.reason) };
}
