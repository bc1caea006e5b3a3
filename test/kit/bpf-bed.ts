import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { encodePod, podKey, SIZES } from '#bpf/layout.ts';
import { ensureBpffs, type MeshOptions, type MeshPrograms, removePins } from '#bpf/programs.ts';
import { findCgroupMount } from '#cli/local/cgroups.ts';
import { closeDescriptor, openNamespace, warmThreadPool } from '#ztunnel/capture/in-pod-sockets.ts';
import { namespaceCookie } from '#ztunnel/capture/native.ts';
import { createNetns, linkNetns, type Netns } from './netns.ts';

/** A place for a mesh's programs: its directory on bpffs and its cgroup, removed with everything in them by `await using`. */
export interface BpfBed extends AsyncDisposable, MeshOptions {
  /** A pod with a device eth0 (IPv4 alone), and a neighbour on the other end of it. */
  readonly pod: (label: string) => Promise<BedPod>;
}

export interface BedPod {
  readonly netns: Netns;
  readonly neighbour: Netns;
  readonly netnsFd: number;
  readonly cookie: bigint;
  readonly device: 'eth0';
  readonly ip: string;
  readonly neighbourIp: string;
  /** Ends the namespace; also when the bed does. */
  readonly remove: () => Promise<void>;
}

export async function createBpfBed(label: string): Promise<BpfBed> {
  await warmThreadPool();
  ensureBpffs();
  const name = `tulletest-${process.pid}-${label}`;
  const directory = `/sys/fs/bpf/tulletest/${name}`;
  const cgroup = join(findCgroupMount(readFileSync('/proc/mounts', 'utf8')), name);
  mkdirSync(cgroup);
  const pods = new Set<BedPod>();
  return {
    directory,
    cgroup,
    pod: async (podLabel) => {
      const pod = await createPod(`${label}-${podLabel}`, (removed) => pods.delete(removed));
      pods.add(pod);
      return pod;
    },
    [Symbol.asyncDispose]: async () => {
      removePins(directory);
      await Promise.all([...pods].map((pod) => pod.remove()));
      rmdirSync(cgroup);
    },
  };
}

async function createPod(label: string, removed: (pod: BedPod) => void): Promise<BedPod> {
  const netns = await createNetns(label);
  const neighbour = await createNetns(`${label}-n`);
  await linkNetns(
    { netns, device: 'eth0', addresses: ['10.77.0.2/24'] },
    { netns: neighbour, device: 'eth0', addresses: ['10.77.0.3/24'] },
  );
  const netnsFd = openNamespace(netns.path);
  const pod: BedPod = {
    netns,
    neighbour,
    netnsFd,
    cookie: namespaceCookie(netnsFd),
    device: 'eth0',
    ip: '10.77.0.2',
    neighbourIp: '10.77.0.3',
    remove: async () => {
      removed(pod);
      closeDescriptor(netnsFd);
      await netns.remove();
      await neighbour.remove();
    },
  };
  return pod;
}

/** Gives the pod its entries in the maps, as a node agent does once it is attached. */
export function enterPod(mesh: MeshPrograms, pod: Pick<BedPod, 'cookie' | 'ip'>, flags: number): void {
  mesh.maps.counters.update(podKey(pod.cookie), Buffer.alloc(SIZES.counters));
  mesh.maps.pods.update(podKey(pod.cookie), encodePod({ flags, ip4: pod.ip, ip6: undefined }));
}

/** Attempts to connect, one after the other, by what became of them: `connected`, or the errno's name. */
export type Attempts = Readonly<Record<string, number>>;

/**
 * Dials from a namespace, from within the cgroup if one is given, again and again.
 * @returns what became of the attempts, once `stop` is called
 */
export async function keepDialling(
  netns: Netns,
  target: string,
  cgroup?: string,
): Promise<{ readonly stop: () => Promise<Attempts> }> {
  const child = dialler(netns, target, cgroup, 'pipe');
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new TypeError('no pipes');
  await once(stdout, 'readable'); // the first attempt is made
  return {
    stop: async () => {
      stdin.end();
      return JSON.parse(await text(stdout)) as Attempts;
    },
  };
}

function dialler(
  netns: Netns,
  target: string,
  cgroup: string | undefined,
  stdin: 'pipe' | 'ignore',
): ChildProcess {
  const enter = cgroup === undefined ? '' : `echo 0 > ${cgroup}/cgroup.procs &&`;
  return netns.spawn('sh', ['-c', `${enter} exec python3 -c "$0" "$@"`, DIAL, target], {
    stdio: [stdin, 'pipe', 'inherit'],
  });
}

/** Dials until its standard input ends, at least once. */
const DIAL = `
import collections, errno, json, select, socket, sys
ip, port = sys.argv[1].rsplit(':', 1)
seen = collections.Counter()
while True:
    with socket.socket() as client:
        client.settimeout(1)
        try:
            client.connect((ip, int(port)))
            seen['connected'] += 1
        except TimeoutError:
            seen['timed out'] += 1
        except OSError as error:
            seen[errno.errorcode[error.errno]] += 1
    if seen.total() == 1:
        print(' ', flush=True)
    if select.select([sys.stdin], [], [], 0)[0]:
        break
print(json.dumps(seen))
`;

/** One attempt: `connected`, or the errno's name. */
export async function dialOnce(netns: Netns, target: string, cgroup?: string): Promise<string> {
  const { stdout } = dialler(netns, target, cgroup, 'ignore');
  if (stdout === null) throw new TypeError('no pipe');
  return Object.keys(JSON.parse(await text(stdout)) as Attempts).join(' ');
}

/** What `bpf-install.ts` says: how it went, as JSON. */
export type InstallReport =
  | { readonly egress: string; readonly descriptors: number }
  | { readonly error: string; readonly feature?: string; readonly code?: string; readonly message: string };

/** Runs `bpf-install.ts` in a process of its own, by way of a command if one is given, and all at one moment. */
export async function installElsewhere(
  options: MeshOptions,
  { processes = 1, by = [] }: { readonly processes?: number; readonly by?: readonly string[] } = {},
): Promise<readonly { readonly report: InstallReport; readonly stderr: string }[]> {
  const children = await Promise.all(Array.from({ length: processes }, () => readyInstaller(options, by)));
  const outputs = children.map(({ stdout, stderr }) => Promise.all([text(stdout), text(stderr)]));
  for (const { stdin } of children) stdin.end();
  return (await Promise.all(outputs)).map(([stdout, stderr]) => ({
    report: JSON.parse(stdout) as InstallReport,
    stderr,
  }));
}

/** Kills a process that installs, so long after it began. */
export async function killInstalling(options: MeshOptions, afterMs: number): Promise<void> {
  const child = await readyInstaller(options, []);
  child.stdin.end();
  await delay(afterMs);
  child.kill('SIGKILL');
  await once(child, 'exit');
}

async function readyInstaller(
  options: MeshOptions,
  by: readonly string[],
): Promise<ChildProcessWithoutNullStreams> {
  const program = join(import.meta.dirname, 'programs/bpf-install.ts');
  const [command = '', ...args] = [...by, process.execPath, program, options.directory, options.cgroup];
  const child = spawn(command, args, { stdio: 'pipe' });
  await once(child.stdout, 'readable');
  return child;
}
