import { Option } from 'commander';
import { CliError, usageError } from '../cli-error.ts';

/** `--state DIR`, of every command. */
export function stateOption(): Option {
  return new Option('--state <dir>', 'the folder of the mesh').default('.tulle');
}

/** `-o json`, of every command that prints. */
export function outputOption(): Option {
  return new Option('-o, --output <format>', 'text or json').choices(['text', 'json']).default('text');
}

/** Collects an option that may be given several times. */
export function collect(value: string, previous: readonly string[] = []): readonly string[] {
  return [...previous, value];
}

/**
 * Ends the command unless it has root.
 * @throws CliError
 */
export function requireRoot(what: string): void {
  if (process.getuid?.() !== 0) throw new CliError(`${what} needs root; try it with sudo`);
}

/**
 * Reads a port of this host or of a workload.
 * @throws CliError (usage)
 */
export function parsePort(text: string, lowest = 1): number {
  const port = Number(text);
  if (/^\d{1,5}$/.test(text) && port >= lowest && port <= 65_535) return port;
  throw usageError(`not a port: ${JSON.stringify(text)}`);
}

/** The command after `NS/NAME --` as commander gives it, which keeps the separator. */
export function withoutSeparator(command: readonly string[]): readonly string[] {
  const rest = command[0] === '--' ? command.slice(1) : command;
  if (rest.length === 0) throw usageError('a command is missing after --');
  return rest;
}
