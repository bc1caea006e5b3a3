import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { isatty } from 'node:tty';
import { CliError } from '../cli-error.ts';
import { callSupervisor } from '../supervisor-client.ts';
import type { EnrolmentState } from './enrolment.ts';
import { type Enclosure, enterCommand, environmentOf, initCommand, needsOwnSession } from './enter.ts';
import { runInForeground, stopSignal } from './foreground.ts';
import { formatWorkloadRef } from './names.ts';
import { startChildrenInNewPidNamespace } from './pid-namespace.ts';
import type { PodDescription, PodRequest } from './pods.ts';
import { isInForeground } from './process-id.ts';

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
    const { child, ended } = startCommand(pod, init.pid ?? 0, command);
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

/**
 * Starts a command in a workload whose first process is `initPid`, with this process's input and output. `ended` gives its
 * exit code.
 */
export function startCommand(
  pod: PodDescription,
  initPid: number,
  command: readonly string[],
): { readonly child: ChildProcess; readonly ended: Promise<number> } {
  const [file = '', ...args] = enterCommand(enclosureOf(pod), initPid, process.cwd(), command);
  const ownSession = needsOwnSession(hasTerminal(), legacyTiocsti());
  const env = environmentOf(pod.record.user, process.env);
  const child = spawn(file, args, { stdio: 'inherit', env, detached: ownSession });
  const ended = runInForeground(child);
  if (!ownSession) return { child, ended };
  const stop = passOnTerminalSignals(child);
  return { child, ended: ended.finally(stop) };
}

/** Whether standard input is a terminal, or another one controls this process. */
function hasTerminal(): boolean {
  if (isatty(0)) return true;
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}

function legacyTiocsti(): string | undefined {
  try {
    return readFileSync('/proc/sys/dev/tty/legacy_tiocsti', 'utf8');
  } catch {
    return undefined; // Linux before 6.2.
  }
}

/**
 * Passes on to a child in a session of its own what the terminal sends to its foreground only, so that Ctrl-C, Ctrl-\,
 * Ctrl-Z and a new size of the window work. Returns what ends that.
 */
function passOnTerminalSignals(child: ChildProcess): () => void {
  const send = (signal: NodeJS.Signals): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, signal);
    } catch {
      // It has just ended.
    }
  };
  const inForeground = (signal: NodeJS.Signals): void => {
    if (isInForeground(process.pid)) send(signal);
  };
  // SIGTSTP itself would do nothing: nobody in the child's session could continue it.
  const suspend = (): void => {
    send('SIGSTOP');
    process.kill(process.pid, 'SIGSTOP');
  };
  const handlers = [
    ...(['SIGINT', 'SIGQUIT', 'SIGWINCH'] as const).map((signal) => [signal, inForeground] as const),
    ['SIGTSTP', suspend] as const,
    ['SIGCONT', send] as const,
  ];
  for (const [signal, handler] of handlers) process.on(signal, handler);
  return () => {
    for (const [signal, handler] of handlers) process.off(signal, handler);
  };
}

/** What it takes to enter a workload. */
function enclosureOf({ netns, cgroup, record }: PodDescription): Enclosure {
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
    const reason = state.reason ?? 'the control plane has not seen it yet';
    if (reason !== said && performance.now() - start > SILENCE_MS) {
      console.error(`tulle: ${formatWorkloadRef(record)} waits to be in the mesh: ${reason} (Ctrl-C ends)`);
      said = reason;
    }
    await delay(POLL_MS);
  }
  return { code: Number(stop.reason) };
}
