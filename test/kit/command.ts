import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';

/** How a command ended and what it printed. */
export interface CommandResult {
  /** Exit code; 128 + n for a signal. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end; killed after the time-out. Never throws for an exit code. */
export async function runCommand(command: readonly string[], timeoutMs = 30_000): Promise<CommandResult> {
  const [file = '', ...args] = command;
  const child = spawn(file, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { code: code ?? (signal === 'SIGKILL' ? 137 : 143), stdout, stderr };
}

/** Runs a command that has to succeed; its standard output. */
export async function mustRun(command: readonly string[], timeoutMs = 30_000): Promise<string> {
  const { code, stdout, stderr } = await runCommand(command, timeoutMs);
  if (code !== 0) throw new Error(`${command.join(' ')}: exit code ${code}\n${stdout}\n${stderr}`);
  return stdout;
}

/** Starts a process whose output goes to a file. Ended by {@link endProcess}. */
export function startLogged(command: readonly string[], logFile: string): ChildProcess {
  const log = openSync(logFile, 'a');
  const [file = '', ...args] = command;
  return spawn(file, args, { stdio: ['ignore', log, log], detached: true });
}

/** Ends a process: SIGTERM, and SIGKILL after 30 s. Resolves with its exit code when it is gone. */
export async function endProcess(
  child: ChildProcess,
  signal: NodeJS.Signals = 'SIGTERM',
): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  const exited = once(child, 'exit');
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), 30_000);
  await exited;
  clearTimeout(timer);
  return child.exitCode;
}
