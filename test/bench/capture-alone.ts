import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { removePins } from '#bpf/programs.ts';
import { findCgroupMount, removeCgroup } from '#cli/local/cgroups.ts';
import { eventually } from '#test/kit/eventually.ts';
import { createNetns, linkNetns, type Netns, withinCgroup } from '#test/kit/netns.ts';
import { type BpfSockets, openBpfSockets } from '#ztunnel/capture/bpf-sockets.ts';
import {
  type Capture,
  type CapturedPod,
  PORT_INBOUND_PLAINTEXT,
  PORT_OUTBOUND,
} from '#ztunnel/capture/capture.ts';
import { createEbpfCapture } from '#ztunnel/capture/ebpf.ts';
import { closeDescriptor, openNamespace, warmThreadPool } from '#ztunnel/capture/in-pod-sockets.ts';
import { namespaceCookie } from '#ztunnel/capture/native.ts';
import { createNftablesCapture } from '#ztunnel/capture/nftables.ts';
import { describeSocket, openProcess, takeDescriptor } from '#ztunnel/hand-over/descriptors.ts';
import { type Endpoint, ONE_CPU } from './capture-load.ts';

/**
 * Redirection alone: a pod and its neighbour on a veth pair, the pod captured as a node agent does it, and in the place of
 * the ztunnel the server itself. What the pod dials, and who dials the pod, ends at that server; without capture it is dialled
 * there, over the same device: loopback what goes out, the veth pair what comes in.
 */

export type Redirection = 'none' | 'ebpf' | 'nftables';
export const REDIRECTIONS: readonly Redirection[] = ['none', 'ebpf', 'nftables'];
export type Direction = 'outbound' | 'inbound';

/** Servers that can stand in the place of the ztunnel. */
type Program = 'sockperf' | 'nginx';

export interface AloneBed extends AsyncDisposable {
  readonly endpoint: (redirection: Redirection, direction: Direction, program: Program) => Endpoint;
}

const POD = '10.9.2.2';
const NEIGHBOUR = '10.9.2.3';
/** Nobody listens there. */
const ELSEWHERE = 8080;

/** Makes the pods: a pair for each redirection and server, all alive at once, one measured at a time. Needs root. */
export async function openAloneBed(): Promise<AloneBed> {
  await warmThreadPool();
  await using opened = new AsyncDisposableStack();
  const name = `tulletest-${process.pid}-capture`;
  const place: Place = {
    scratch: mkdtempSync(join(tmpdir(), 'tulle-bench-')),
    bpfDirectory: join('/sys/fs/bpf/tulle', name),
    cgroup: join(findCgroupMount(readFileSync('/proc/mounts', 'utf8')), name),
  };
  opened.defer(() => rmSync(place.scratch, { recursive: true }));
  opened.defer(() => removeCgroup(place.cgroup));
  opened.defer(() => removePins(place.bpfDirectory));
  const ebpf = createEbpfCapture({ directory: place.bpfDirectory, cgroup: place.cgroup });
  ebpf.install();
  opened.defer(() => ebpf.close());
  const captures = { none: undefined, ebpf, nftables: createNftablesCapture() };
  const pairs = new Map<string, Pair>();
  for (const redirection of REDIRECTIONS)
    for (const program of ['sockperf', 'nginx'] as const) {
      const pair = opened.use(await openPair(place, redirection, program));
      pairs.set(`${redirection} ${program}`, pair);
      const capture = captures[redirection];
      if (capture !== undefined) opened.use(await captured(capture, pair));
    }
  const stack = opened.move();
  return {
    endpoint: (redirection, direction, program) => {
      const pair = pairs.get(`${redirection} ${program}`);
      if (pair === undefined) throw new TypeError(`no pair for ${redirection} and ${program}`);
      return endpointOf(pair, redirection, direction);
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

interface Place {
  readonly scratch: string;
  readonly bpfDirectory: string;
  readonly cgroup: string;
}

interface Pair extends AsyncDisposable {
  readonly pod: Netns;
  readonly neighbour: Netns;
}

/** A pod whose server listens, and its neighbour; the pod's processes are where those of an enrolled pod are. */
async function openPair(place: Place, redirection: Redirection, program: Program): Promise<Pair> {
  await using opened = new AsyncDisposableStack();
  const label = `${redirection}-${program}`;
  const netns = opened.use(await createNetns(label));
  const neighbour = opened.use(await createNetns(`${label}-n`));
  await linkNetns(
    { netns, device: 'eth0', addresses: [`${POD}/24`] },
    { netns: neighbour, device: 'eth0', addresses: [`${NEIGHBOUR}/24`] },
  );
  // Sockets in TIME_WAIT would decide what a new connection costs.
  for (const each of [netns, neighbour]) await each.exec('sysctl', ['-qw', 'net.ipv4.tcp_max_tw_buckets=64']);
  const inMesh = (kind: string): Netns =>
    redirection === 'ebpf' ? withinCgroup(netns, join(place.cgroup, kind, label)) : netns;
  const server = inMesh('processes').spawn('taskset', serverCommand(place, program, label), {
    stdio: 'ignore',
  });
  await eventually(`${label} listens`, () => listens(netns), 10_000);
  if (redirection === 'ebpf') registerListeners(place.bpfDirectory, netns, server.pid ?? 0);
  const stack = opened.move();
  return { pod: inMesh('pods'), neighbour, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function listens(netns: Netns): Promise<boolean> {
  const sockets = await netns.exec('ss', ['-Htln']);
  return [PORT_OUTBOUND, PORT_INBOUND_PLAINTEXT].every((port) => sockets.includes(`:${port} `));
}

function serverCommand({ scratch }: Place, program: Program, label: string): readonly string[] {
  const [, ...pinned] = ONE_CPU;
  const file = join(scratch, label);
  const ports = [PORT_OUTBOUND, PORT_INBOUND_PLAINTEXT];
  if (program === 'sockperf') {
    writeFileSync(file, ports.map((port) => `T:0.0.0.0:${port}\n`).join(''));
    return [...pinned, 'sockperf', 'server', '-f', file];
  }
  const listen = ports.map((port) => `listen ${port} backlog=4096;`).join(' ');
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${file}.pid; error_log /dev/null;
events { worker_connections 8192; }
http { access_log off; server { ${listen} location / { return 200 '${'x'.repeat(84)}'; } } }
`,
  );
  return [...pinned, 'nginx', '-e', '/dev/null', '-c', file];
}

/** Says of the server's listening sockets what a ztunnel says of its own. */
function registerListeners(bpfDirectory: string, { path }: Netns, pid: number): void {
  using opened = new DisposableStack();
  const bpf = openBpfSockets(bpfDirectory);
  if (bpf === undefined) throw new Error(`nothing is pinned at ${bpfDirectory}`);
  opened.defer(() => bpf.close());
  const netnsFd = opened.adopt(openNamespace(path), closeDescriptor);
  const pidfd = opened.adopt(openProcess(pid), closeDescriptor);
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    const fd = opened.adopt(takeDescriptor(pidfd, Number(name)), closeDescriptor);
    register(bpf, namespaceCookie(netnsFd), fd);
  }
}

function register(bpf: BpfSockets, cookie: bigint, fd: number): void {
  const port = describeSocket(fd)?.address.port;
  if (port !== PORT_OUTBOUND && port !== PORT_INBOUND_PLAINTEXT) return;
  bpf.tag(fd);
  const kind = port === PORT_OUTBOUND ? 'outbound' : 'inbound';
  bpf.register({ fd, cookie, kind, slots: [0, 1, 2, 3, 4, 5, 6, 7] });
}

/** Captured until disposed, strictly. */
async function captured(capture: Capture, { pod }: Pair): Promise<AsyncDisposable> {
  const description: CapturedPod = {
    uid: pod.name,
    netnsPath: pod.path,
    udp: 'allow',
    mode: 'strict',
    refusesPlaintext: false,
    addresses: [POD],
    probes: [],
  };
  await capture.apply(description, 'both');
  return { [Symbol.asyncDispose]: () => capture.remove(description) };
}

function endpointOf({ pod, neighbour }: Pair, redirection: Redirection, direction: Direction): Endpoint {
  const client = direction === 'outbound' ? pod : neighbour;
  const run: Endpoint['run'] = ([file = '', ...args]) => client.exec(file, args);
  if (direction === 'outbound') {
    return redirection === 'none'
      ? { run, ip: '127.0.0.1', port: PORT_OUTBOUND }
      : { run, ip: NEIGHBOUR, port: ELSEWHERE };
  }
  return { run, ip: POD, port: redirection === 'none' ? PORT_INBOUND_PLAINTEXT : ELSEWHERE };
}
