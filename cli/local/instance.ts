import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { inCgroup } from './cgroups.ts';
import { findProcess, isAlive, type ProcessId } from './process-id.ts';
import { signalProcess } from './process-signal.ts';

/** One start of a process of the mesh. */
export interface Instance {
  /** From 1, also over restarts of `tulle up` that take the process over. */
  readonly number: number;
  /** Undefined when it could not be started. */
  readonly process: ProcessId | undefined;
  /** See `fingerprint.ts`. */
  readonly fingerprint: string;
  /** When it was started, or taken over, by `performance.now()`. */
  readonly startedAt: number;
  /** How it ended, when it has: `ended with exit code 1`, `was killed by SIGSEGV`. Never rejects. */
  readonly ended: Promise<string>;
  readonly signal: (signal: 'SIGTERM' | 'SIGKILL') => void;
}

/** What it takes to start one. */
export interface Launch {
  readonly number: number;
  readonly command: readonly string[];
  readonly fingerprint: string;
  readonly env: NodeJS.ProcessEnv;
  readonly logFile: string;
  readonly cgroup: string;
  /** Becomes its descriptor 3. */
  readonly hostNetnsFd: number;
}

/** How often it is looked whether a process that is nobody's child here has ended. */
const LOOK_MS = 50;

/** Starts a process. One that cannot be, as without descriptors, is an instance that has ended. */
export function launchInstance(launch: Launch): Instance {
  const { number, fingerprint } = launch;
  const common = { number, fingerprint, startedAt: performance.now() };
  try {
    const child = spawnIn(launch);
    return {
      ...common,
      process: child.pid === undefined ? undefined : findProcess(child.pid),
      ended: describeEnd(child),
      signal: (signal) => child.kill(signal),
    };
  } catch (error) {
    const ended = Promise.resolve(whyNotStarted(error));
    return { ...common, process: undefined, ended, signal: () => undefined };
  }
}

/** Takes over a process that an earlier supervisor started, and that lives. */
export function adoptInstance(number: number, process: ProcessId, fingerprint: string): Instance {
  return {
    number,
    process,
    fingerprint,
    startedAt: performance.now(),
    ended: waitForEndOf(process),
    signal: (signal) => signalProcess(process, signal),
  };
}

function spawnIn({ command, env, logFile, cgroup, hostNetnsFd }: Launch): ChildProcess {
  const log = openSync(logFile, 'a', 0o600);
  try {
    const [file = '', ...args] = inCgroup(cgroup, command);
    // A session of its own: Ctrl-C in the terminal is the supervisor's to handle.
    return spawn(file, args, { stdio: ['ignore', log, log, hostNetnsFd], env, detached: true });
  } finally {
    closeSync(log);
  }
}

async function waitForEndOf(process: ProcessId): Promise<string> {
  while (isAlive(process)) await delay(LOOK_MS);
  return 'ended';
}

async function describeEnd(child: ChildProcess): Promise<string> {
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
    return signal === null ? `ended with exit code ${code}` : `was killed by ${signal}`;
  } catch (error) {
    return whyNotStarted(error);
  }
}

function whyNotStarted(error: unknown): string {
  return `did not start: ${error instanceof Error ? error.message : String(error)}`;
}
