import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { CliError } from '../cli-error.ts';

/**
 * Every process that a mesh starts is in its cgroup before it does anything, so whatever crashed, all of them are found:
 * `tulle-1a2b3c/processes/NAME` and `tulle-1a2b3c/pods/NS_NAME`. No limits are set.
 * @throws CliError where the host has no cgroup version 2.
 */
export function cgroupRoot(mesh: string): string {
  mount ??= findCgroupMount(readFileSync('/proc/mounts', 'utf8'));
  return join(mount, mesh);
}

/** Looked for once: it is asked for all the time, also when no descriptor is left to look with. */
let mount: string | undefined;

/**
 * Where cgroup version 2 is mounted, by the text of /proc/mounts: /sys/fs/cgroup, or /sys/fs/cgroup/unified beside version 1.
 * @throws CliError
 */
export function findCgroupMount(mounts: string): string {
  for (const line of mounts.split('\n')) {
    const [, path, type] = line.split(' ');
    if (type === 'cgroup2' && path !== undefined) return path.replaceAll('\\040', ' ');
  }
  // Mounted over the controllers of version 1, it would hide them from everybody.
  const place = /^\S+ \/sys\/fs\/cgroup\S* (cgroup|tmpfs) /m.test(mounts)
    ? '/sys/fs/cgroup/unified'
    : '/sys/fs/cgroup';
  const mkdir = place === '/sys/fs/cgroup' ? '' : `mkdir -p ${place} && `;
  throw new CliError(`cgroup version 2 is not mounted: ${mkdir}mount -t cgroup2 none ${place}`);
}

/** Makes a cgroup with its parents. */
export function makeCgroup(path: string): string {
  mkdirSync(path, { recursive: true });
  return path;
}

/** Ids of the processes in a cgroup and below; none when it is gone. */
export function processesIn(path: string): readonly number[] {
  try {
    const own = readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
    return [...own, ...childrenOf(path).flatMap(processesIn)];
  } catch {
    return [];
  }
}

/** Signals everything in a cgroup and below. */
export function signalCgroup(path: string, signal: NodeJS.Signals): void {
  for (const pid of processesIn(path)) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has just ended.
    }
  }
}

/** Kills everything in a cgroup and below, also what is being forked meanwhile, and removes it. */
export async function removeCgroup(path: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (existsSync(path)) {
    signalCgroup(path, 'SIGKILL');
    if (tryRemove(path)) return;
    if (performance.now() > deadline)
      throw new CliError(`cgroup ${path} holds processes that cannot be killed`);
    await delay(10);
  }
}

/** Waits until a cgroup holds no process; false when it still does after the time. */
export async function waitUntilEmpty(path: string, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (processesIn(path).length > 0) {
    if (performance.now() > deadline) return false;
    await delay(20);
  }
  return true;
}

/** Command line that runs another one inside a cgroup, from its first instruction on. */
export function inCgroup(path: string, command: readonly string[]): readonly string[] {
  return ['sh', '-c', 'echo 0 > "$0/cgroup.procs" && exec "$@"', path, ...command];
}

function tryRemove(path: string): boolean {
  try {
    for (const child of childrenOf(path)) if (!tryRemove(child)) return false;
    rmdirSync(path);
    return true;
  } catch {
    return false;
  }
}

function childrenOf(path: string): readonly string[] {
  return readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(path, entry.name));
}
