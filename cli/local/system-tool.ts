import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { CliError } from '../cli-error.ts';

/**
 * Runs a tool of the system (ip, nsenter, mount …) to its end, with some text as its input, and returns what it printed.
 * @throws CliError with what it complained about.
 */
export async function runTool(command: readonly string[], input = ''): Promise<string> {
  const [file = '', ...args] = command;
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  // A tool that ends before it has read everything is judged by its exit code.
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  let code: number | null;
  try {
    [code] = (await once(child, 'close')) as [number | null];
  } catch (cause) {
    throw new CliError(`cannot run ${file}: is it installed? (cli/prepare installs what is missing)`, {
      cause,
    });
  }
  if (code === 0) return Buffer.concat(stdout).toString();
  throw new CliError(`${command.join(' ')} failed: ${Buffer.concat(stderr).toString().trim()}`);
}

/** Tools without which there are no nodes, no workloads and no capture. */
const NEEDED = ['ip', 'nft', 'nsenter', 'unshare', 'setpriv', 'mount'];

/**
 * Refuses to begin without a tool that is needed later.
 * @throws CliError that names what is missing.
 */
export function requireTools(path: string = process.env['PATH'] ?? ''): void {
  const folders = path.split(delimiter);
  const missing = NEEDED.filter((tool) => !folders.some((folder) => isExecutable(join(folder, tool))));
  if (missing.length === 0) return;
  const prepare = join(import.meta.dirname, '..', 'prepare');
  throw new CliError(
    `not installed: ${missing.join(', ')}; ${prepare} installs what is missing, or names it`,
  );
}

/**
 * Refuses to begin on a kernel without IPv6: every node and workload has addresses of both families.
 * @throws CliError
 */
export function requireIpv6(): void {
  if (existsSync('/proc/sys/net/ipv6')) return;
  throw new CliError('the kernel has no IPv6, which the mesh uses inside: start it without ipv6.disable=1');
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
