import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { isAlive, type ProcessId, waitForEnd } from './process-id.ts';

/** The same numbers on every architecture (Linux 5.1 and 5.3). */
const SYS_PIDFD_SEND_SIGNAL = 424;
const SYS_PIDFD_OPEN = 434;
const NUMBERS = { SIGTERM: 15, SIGKILL: 9 } as const;

type Syscall = (number: number, first: number, second: number, third: number, fourth: number) => number;
let loaded: Syscall | undefined;

function syscall(...args: Parameters<Syscall>): number {
  loaded ??= koffi
    .load('libc.so.6')
    .func('long syscall(long number, long first, long second, long third, long fourth)') as Syscall;
  return loaded(...args);
}

/**
 * Signals this very process; false when it is gone. It is held by a descriptor first and looked at then, so that no later process
 * with its number is hit, whenever it ends (pidfd_open(2), pidfd_send_signal(2)).
 */
export function signalProcess(target: ProcessId, signal: keyof typeof NUMBERS): boolean {
  const pidfd = syscall(SYS_PIDFD_OPEN, target.pid, 0, 0, 0);
  // Gone, or there is no descriptor left: then by its number, which is looked at in the moment before.
  if (pidfd < 0) return signalByNumber(target, signal);
  try {
    return isAlive(target) && syscall(SYS_PIDFD_SEND_SIGNAL, pidfd, NUMBERS[signal], 0, 0) === 0;
  } finally {
    closeSync(pidfd);
  }
}

function signalByNumber(target: ProcessId, signal: NodeJS.Signals): boolean {
  try {
    return isAlive(target) && process.kill(target.pid, signal);
  } catch {
    return false;
  }
}

/** Ends a process: SIGTERM, and SIGKILL when it has not ended in time. */
export async function endProcess(process: ProcessId, graceMs: number): Promise<void> {
  if (!signalProcess(process, 'SIGTERM')) return;
  if (await waitForEnd(process, graceMs)) return;
  signalProcess(process, 'SIGKILL');
  await waitForEnd(process, 5_000);
}
