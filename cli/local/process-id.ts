import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** A process that cannot be mistaken for a later one with the same number. */
export interface ProcessId {
  readonly pid: number;
  /** Clock ticks between the boot and its start: field 22 of /proc/PID/stat. */
  readonly startTime: number;
}

/** Identifies a running process; undefined when there is none of that number, or only a zombie. */
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

/** Whether this very process still runs. */
export function isAlive(process: ProcessId): boolean {
  return findProcess(process.pid)?.startTime === process.startTime;
}

/** Signals this very process; false when it is gone. */
export function signalProcess(target: ProcessId, signal: NodeJS.Signals): boolean {
  if (!isAlive(target)) return false;
  try {
    return process.kill(target.pid, signal);
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

/** Ends a process: SIGTERM, and SIGKILL when it has not ended in time. */
export async function endProcess(process: ProcessId, graceMs: number): Promise<void> {
  if (!signalProcess(process, 'SIGTERM')) return;
  if (await waitForEnd(process, graceMs)) return;
  signalProcess(process, 'SIGKILL');
  await waitForEnd(process, 5_000);
}

/**
 * Whether the terminal sends its Ctrl-C to this process by itself, and so to everything in its group: then nobody has to
 * pass it on.
 */
export function isInForeground(pid: number): boolean {
  const fields = statFields(pid);
  return fields !== undefined && Number(fields[4]) !== 0 && fields[2] === fields[5];
}

/** Fields of /proc/PID/stat from the third (state) on; the second, the name, may hold anything. */
function statFields(pid: number): readonly string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text
      .slice(text.lastIndexOf(')') + 2)
      .trim()
      .split(' ');
  } catch {
    return undefined;
  }
}
