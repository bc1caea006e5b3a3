import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { isInForeground } from './process-id.ts';

const FORWARDED: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'];

/** Signals that a terminal sends to everything in its foreground by itself. */
const FROM_TERMINAL: ReadonlySet<NodeJS.Signals> = new Set(['SIGINT', 'SIGQUIT']);

/**
 * Passes this process's signals on to a child that has its input and output, until the child ends. Returns its exit code, as
 * a shell gives it: 128 + n when signal n ended it, 127 when it could not be started.
 */
export async function runInForeground(child: ChildProcess): Promise<number> {
  const forward = (signal: NodeJS.Signals): void => {
    if (FROM_TERMINAL.has(signal) && isInForeground(process.pid)) return;
    child.kill(signal);
  };
  for (const signal of FORWARDED) process.on(signal, forward);
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
    return signal === null ? (code ?? 0) : exitCodeOf(signal);
  } finally {
    for (const signal of FORWARDED) process.off(signal, forward);
  }
}

/** Until it is disposed of, a signal that asks this process to end aborts; the reason is the exit code for it. */
export function stopSignal(): { readonly signal: AbortSignal; readonly dispose: () => void } {
  const controller = new AbortController();
  const abort = (signal: NodeJS.Signals): void => controller.abort(exitCodeOf(signal));
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, abort);
  return {
    signal: controller.signal,
    dispose: () => {
      for (const signal of signals) process.off(signal, abort);
    },
  };
}

function exitCodeOf(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}
