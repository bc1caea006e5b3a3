import { readFileSync } from 'node:fs';
import { CliError } from '../cli-error.ts';
import type { SupervisedProcess } from './supervised-process.ts';

/** Crashes in a row after which a process will not get better by itself. */
const MAX_CRASHES = 3;
const MAX_LINES = 20;

/**
 * The error of a mesh that cannot come up because one of its processes cannot: it ended with the code of something refused or
 * misused, which another try would not change, or it has crashed several times. Undefined as long as there is hope.
 */
export function failedStart(processes: readonly SupervisedProcess[]): CliError | undefined {
  const failed = processes.find(
    ({ state, restarts }) =>
      (state.kind === 'crashed' && /with exit code [12]$/.test(state.how)) || restarts >= MAX_CRASHES,
  );
  if (failed === undefined) return undefined;
  const { spec, lastEnd } = failed;
  const said = lastWords(readFileSync(spec.logFile, 'utf8'));
  return new CliError(`${spec.name} ${lastEnd} (log: ${spec.logFile})${said === '' ? '' : `\n${said}`}`);
}

/** What a process said for people at the end of its log: lines that are not records in JSON. */
export function lastWords(log: string): string {
  const lines = log.trimEnd().split('\n');
  const firstOfTail = lines.findLastIndex((line) => line.startsWith('{')) + 1;
  return lines.slice(Math.max(firstOfTail, lines.length - MAX_LINES)).join('\n');
}
