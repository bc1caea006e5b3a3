import { type ChildProcess, execFile, type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import { inCgroup } from '#cli/local/cgroups.ts';

const run = promisify(execFile);
const PREFIX = 'tulletest';

/** A network namespace of a test's own, removed with everything in it by `await using` or `remove`. */
export interface Netns extends AsyncDisposable {
  /** As `ip netns` lists it. */
  readonly name: string;
  /** Path of its handle. */
  readonly path: string;
  /** Runs a command inside; its standard output. Rejects with its standard error when it fails. */
  readonly exec: (command: string, args: readonly string[], input?: string) => Promise<string>;
  /** Starts a process inside; it is killed when the namespace is removed. */
  readonly spawn: (command: string, args: readonly string[], options?: SpawnOptions) => ChildProcess;
  readonly remove: () => Promise<void>;
}

/**
 * Makes a namespace `tulletest-<pid>-<label>` with its loopback interface up. Also sweeps namespaces of test processes
 * that died. Needs root.
 */
export async function createNetns(label: string): Promise<Netns> {
  await sweep();
  const name = `${PREFIX}-${process.pid}-${label}`;
  const path = `/run/netns/${name}`;
  const children = new Set<ChildProcess>();
  await run('ip', ['netns', 'add', name]);
  await run('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
  // IPv6 works from the start: no duplicate address detection on links that come later.
  await execInside(path, 'sh', ['-c', 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad']);

  const remove = async (): Promise<void> => {
    await Promise.all([...children].map(stop));
    await run('ip', ['netns', 'delete', name]);
  };
  return {
    name,
    path,
    exec: (command, args, input) => execInside(path, command, args, input),
    spawn: (command, args, options = {}) => {
      const child = spawn('nsenter', [`--net=${path}`, command, ...args], options);
      children.add(child);
      child.once('exit', () => children.delete(child));
      return child;
    },
    remove,
    [Symbol.asyncDispose]: remove,
  };
}

/** The same namespace; whatever is run in it is in that cgroup from its first instruction on, which is made here. */
export function withinCgroup(netns: Netns, cgroup: string): Netns {
  mkdirSync(cgroup, { recursive: true });
  const within = (command: string, args: readonly string[]): readonly [string, readonly string[]] => {
    const [file = '', ...rest] = inCgroup(cgroup, [command, ...args]);
    return [file, rest];
  };
  return {
    ...netns,
    exec: (command, args, input) => netns.exec(...within(command, args), input),
    spawn: (command, args, options) => netns.spawn(...within(command, args), options),
  };
}

/** One end of a link: addresses with their prefix lengths. */
export interface LinkEnd {
  readonly netns: Netns;
  readonly device: string;
  readonly addresses: readonly string[];
}

/** Joins two namespaces by a veth pair; devices are up and IPv6 addresses usable at once. */
export async function linkNetns(a: LinkEnd, b: LinkEnd): Promise<void> {
  const peer = ['type', 'veth', 'peer', 'name', b.device, 'netns', b.netns.name];
  await run('ip', ['-n', a.netns.name, 'link', 'add', a.device, ...peer]);
  for (const end of [a, b]) {
    for (const address of end.addresses) {
      const noDad = address.includes(':') ? ['nodad'] : [];
      await run('ip', ['-n', end.netns.name, 'address', 'add', address, 'dev', end.device, ...noDad]);
    }
    await run('ip', ['-n', end.netns.name, 'link', 'set', end.device, 'up']);
  }
}

function execInside(path: string, command: string, args: readonly string[], input?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile('nsenter', [`--net=${path}`, command, ...args], (error, stdout, stderr) => {
      if (error)
        reject(new Error(`${command} ${args.join(' ')}: ${stderr || error.message}`, { cause: error }));
      else resolve(stdout);
    });
    child.stdin?.on('error', () => undefined); // it ended before it read its input; its exit code tells
    child.stdin?.end(input);
  });
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

async function sweep(): Promise<void> {
  const names = await readdir('/run/netns').catch(() => []);
  for (const name of names) {
    const pid = new RegExp(`^${PREFIX}-(\\d+)-`).exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) await run('ip', ['netns', 'delete', name]);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
