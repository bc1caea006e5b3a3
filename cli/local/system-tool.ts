import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
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

/** By number, as linux/capability.h has them: to make namespaces and mount them, and to set up their network. */
const CAPABILITIES = [
  ['CAP_SYS_ADMIN', 21n],
  ['CAP_NET_ADMIN', 12n],
] as const;

/**
 * Refuses to begin as a root that may not make namespaces, as in most containers.
 * @param status text of /proc/self/status
 * @throws CliError that names what is missing.
 */
export function requireCapabilities(status: string = readFileSync('/proc/self/status', 'utf8')): void {
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  const missing = CAPABILITIES.filter(([, bit]) => ((effective >> bit) & 1n) === 0n).map(([name]) => name);
  if (missing.length === 0) return;
  throw new CliError(
    `not allowed to make network namespaces: ${missing.join(' and ')} missing; in a container, start it with --privileged`,
  );
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
