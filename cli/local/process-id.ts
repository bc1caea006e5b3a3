import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** A process that cannot be mistaken for a later one with the same number. */
export interface ProcessId {
  readonly pid: number;
  /** Clock ticks between the boot and its start: field 22 of /proc/PID/stat. */
  readonly startTime: number;
}

/**
 * Identifies a running process; undefined when there is none of that number, or only a zombie.
 * @throws Error when /proc cannot be read
 */
export function findProcess(pid: number): ProcessId | undefined {
  const fields = statFields(pid);
  return fields === undefined || fields[0] === 'Z' || fields[0] === 'X'
    ? undefined
    : { pid, startTime: Number(fields[19]) };
}

/**
 * Identifies a process that certainly runs, such as this one.
 * @throws Error when it does not.
 */
export function getProcess(pid: number): ProcessId {
  const found = findProcess(pid);
  if (found === undefined) throw new Error(`process ${pid} is gone`);
  return found;
}

/**
 * Whether this very process still runs. Where that cannot be read, as without a free descriptor, a process of that number is
 * taken for it: nothing is given up for dead that may live.
 */
export function isAlive({ pid, startTime }: ProcessId): boolean {
  try {
    return findProcess(pid)?.startTime === startTime;
  } catch {
    return hasNumber(pid);
  }
}

function hasNumber(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** Waits until a process is gone; false when it still runs after the time. */
export async function waitForEnd(process: ProcessId, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (isAlive(process)) {
    if (performance.now() > deadline) return false;
    await delay(20);
  }
  return true;
}

/**
 * Whether the terminal sends its Ctrl-C to this process by itself, and so to everything in its group: then nobody has to
 * pass it on.
 */
export function isInForeground(pid: number): boolean {
  const fields = statFields(pid);
  return fields !== undefined && Number(fields[4]) !== 0 && fields[2] === fields[5];
}

/**
 * The process that began the session of a process, by number; undefined when there is none of that number.
 * @throws Error when /proc cannot be read
 */
export function sessionOf(pid: number): number | undefined {
  const session = statFields(pid)?.[3];
  return session === undefined ? undefined : Number(session);
}

/** Fields of /proc/PID/stat from the third (state) on; the second, the name, may hold anything. */
function statFields(pid: number): readonly string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text
      .slice(text.lastIndexOf(')') + 2)
      .trim()
      .split(' ');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
}
