import type { ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { removePins } from '#bpf/programs.ts';
import { findCgroupMount, removeCgroup } from '#cli/local/cgroups.ts';
import { connectZds } from '#ztunnel/zds/client.ts';
import { endProcess } from './command.ts';
import { eventually } from './eventually.ts';
import { createNetns, linkNetns, type Netns, withinCgroup } from './netns.ts';
import { type Relay, type RelayOptions, startRelay } from './relay.ts';
import type { RelayedConnection } from './relay-in-pod.ts';

const MAIN = join(import.meta.dirname, '../../cli/main.ts');

/** A pod of the bed: `10.244.1.N` and `fd00:10:244:1::N`. */
export interface BedPod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly netns: Netns;
  readonly number: number;
}

/** What node-agent.json says of a pod. */
export interface BedPodReport {
  readonly uid: string;
  readonly state: string;
  readonly capture: 'ebpf' | 'nftables';
  readonly captureReason?: string;
  readonly error?: string;
  readonly refused?: Readonly<Record<string, number>>;
}

/** A ztunnel's stand-in: takes pods over ZDS and relays what is captured in them, as it is. */
export interface RelayZtunnel extends AsyncDisposable {
  /** uids of the pods that it serves. */
  readonly pods: () => readonly string[];
  /** What it relayed in all pods so far. */
  readonly connections: () => readonly RelayedConnection[];
}

/**
 * One node without a fabric: a namespace for it with a control plane and a node agent, real processes both, and pods that
 * are routed through it.
 */
export interface NodeBed extends AsyncDisposable {
  readonly state: string;
  readonly node: Netns;
  /** What eBPF is given; whatever is run in pods is in a cgroup below that one. */
  readonly ebpf: { readonly directory: string; readonly cgroup: string };
  /** @param container further fields of the container in the Pod object */
  readonly addPod: (namespace: string, name: string, app: string, container?: object) => Promise<BedPod>;
  /** Takes a pod's file away and then the pod itself. */
  readonly removePod: (pod: BedPod) => Promise<void>;
  /** Replaces the mesh's YAML. */
  readonly configure: (yaml: string) => void;
  /**
   * @param capture as `--capture`; default: that of the bed
   * @param directory of eBPF; default: that of the bed
   */
  readonly startAgent: (capture?: BedCapture, directory?: string) => void;
  readonly stopAgent: (signal: NodeJS.Signals) => Promise<void>;
  readonly startRelayZtunnel: () => RelayZtunnel;
  /** Waits until the agent reports a pod in that state. */
  readonly until: (pod: BedPod, state: string) => Promise<void>;
  readonly report: () => readonly BedPodReport[];
}

export type BedCapture = 'auto' | 'ebpf' | 'nftables';

/** Makes the bed; the agent is not started. Needs root. */
export async function makeNodeBed(
  label: string,
  yaml: string,
  capture: BedCapture = 'nftables',
): Promise<NodeBed> {
  const name = `tulletest-${process.pid}-${label}`;
  const ebpf = {
    directory: join('/sys/fs/bpf/tulle', name),
    cgroup: join(findCgroupMount(readFileSync('/proc/mounts', 'utf8')), name),
  };
  const state = mkdtempSync(join(tmpdir(), 'tulle-bed-'));
  for (const folder of ['pods', 'nodes', 'tokens', 'run/n1', 'logs', 'mesh']) {
    mkdirSync(join(state, folder), { recursive: true, mode: 0o700 });
  }
  const write = (path: string, text: string): void => {
    writeFileSync(`${join(state, path)}.new`, text);
    renameSync(`${join(state, path)}.new`, join(state, path));
  };
  write('tokens/n1', Buffer.alloc(32, 7).toString('base64url'));
  write('nodes/n1.json', JSON.stringify({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'n1' } }));
  write('mesh/mesh.yaml', yaml);
  const node = await createNetns(`${label}-node`);
  await node.exec('sh', [
    '-c',
    'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding',
  ]);
  const pods: BedPod[] = [];
  const start = (name: string, args: readonly string[]): ChildProcess => {
    const log = openSync(join(state, 'logs', `${name}.log`), 'a');
    return node.spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', log, log] });
  };
  start('control-plane', [
    ...['control-plane', '--state', state, '-f', join(state, 'mesh'), '--listen', '127.0.0.1:15012'],
    ...['--nodes', 'n1'],
  ]);
  await eventually('the control plane is ready', () =>
    readFileSync(join(state, 'run/n1/enrolment.json'), 'utf8'),
  );
  let agent: ChildProcess | undefined;

  const report = (): readonly BedPodReport[] =>
    JSON.parse(readFileSync(join(state, 'run/n1/node-agent.json'), 'utf8')).pods;
  return {
    state,
    node,
    ebpf,
    addPod: async (namespace, name, app, container = {}) => {
      const number = pods.length + 2;
      const own = join(ebpf.cgroup, 'pods', `${namespace}_${name}`);
      const netns = withinCgroup(await createNetns(`${label}-${name}`), own);
      await connectPod(node, netns, number);
      const pod = { namespace, name, uid: `uid-${name}`, netns, number };
      pods.push(pod);
      write(`pods/${namespace}_${name}.json`, JSON.stringify(podObject(pod, app, container)));
      return pod;
    },
    removePod: async (pod) => {
      rmSync(join(state, `pods/${pod.namespace}_${pod.name}.json`));
      await pod.netns.remove();
      pods.splice(pods.indexOf(pod), 1);
    },
    configure: (text) => write('mesh/mesh.yaml', text),
    startAgent: (method = capture, directory = ebpf.directory) => {
      const args = ['--state', state, '--node', 'n1', '--control-plane', 'https://127.0.0.1:15012'];
      const how = ['--capture', method, '--bpf-directory', directory, '--cgroup', ebpf.cgroup];
      agent = start('node-agent', ['node-agent', ...args, ...how]);
    },
    stopAgent: async (signal) => {
      if (agent !== undefined) await endProcess(agent, signal);
    },
    startRelayZtunnel: () =>
      startRelayZtunnel(join(state, 'run/n1/zds.sock'), {
        bpfDirectory: ebpf.directory,
        ...(capture === 'nftables' ? {} : { cgroup: join(ebpf.cgroup, 'processes/ztunnel') }),
      }),
    until: async (pod, wanted) => {
      await eventually(`${pod.name} is ${wanted}`, () =>
        report().some(({ uid, state: is }) => uid === pod.uid && is === wanted),
      );
    },
    report,
    [Symbol.asyncDispose]: async () => {
      for (const { netns } of pods) await netns.remove();
      await node.remove();
      removePins(ebpf.directory);
      await removeCgroup(ebpf.cgroup);
      rmSync(state, { recursive: true, force: true });
    },
  };
}

async function connectPod(node: Netns, pod: Netns, number: number): Promise<void> {
  const device = `pod-${number}`;
  const [v4, v6] = [`10.244.1.${number}`, `fd00:10:244:1::${number}`];
  await linkNetns(
    { netns: node, device, addresses: ['10.244.1.1/32', 'fd00:10:244:1::1/128'] },
    { netns: pod, device: 'eth0', addresses: [`${v4}/32`, `${v6}/128`] },
  );
  const onNode = [
    `route add ${v4}/32 dev ${device} src 10.244.1.1`,
    `route add ${v6}/128 dev ${device} src fd00:10:244:1::1`,
  ];
  await node.exec('ip', ['-batch', '-'], onNode.join('\n'));
  const inPod = [
    'route add default via 10.244.1.1 dev eth0 onlink',
    'route add ::/0 via fd00:10:244:1::1 dev eth0 onlink',
  ];
  await pod.exec('ip', ['-batch', '-'], inPod.join('\n'));
}

function podObject(pod: BedPod, app: string, container: object): unknown {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: pod.name,
      namespace: pod.namespace,
      uid: pod.uid,
      labels: { app },
      annotations: { 'tulle.dev/netns': pod.netns.path },
    },
    spec: {
      serviceAccountName: 'default',
      nodeName: 'n1',
      containers: [{ name: 'main', ports: [], ...container }],
    },
    status: {
      phase: 'Running',
      podIP: `10.244.1.${pod.number}`,
      podIPs: [{ ip: `10.244.1.${pod.number}` }, { ip: `fd00:10:244:1::${pod.number}` }],
      conditions: [{ type: 'Ready', status: 'True' }],
    },
  };
}

function startRelayZtunnel(path: string, options: RelayOptions): RelayZtunnel {
  const relays = new Map<string, Relay>();
  const seen: Relay[] = [];
  const controller = new AbortController();
  const done = connectZds({
    path,
    onAdd: async ({ uid }, netnsFd) => {
      const relay = await startRelay(`/proc/self/fd/${netnsFd}`, options);
      relays.set(uid, relay);
      seen.push(relay);
    },
    onDelete: async (uid) => {
      await relays.get(uid)?.stop();
      relays.delete(uid);
    },
    onSnapshot: () => undefined,
    signal: controller.signal,
    logger: pino({ level: 'silent' }),
  });
  return {
    pods: () => [...relays.keys()],
    connections: () => seen.flatMap(({ connections }) => connections),
    [Symbol.asyncDispose]: async () => {
      controller.abort();
      await done;
      for (const relay of seen) await relay[Symbol.asyncDispose]();
    },
  };
}
