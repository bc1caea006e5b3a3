import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isIp } from '#api/address.ts';
import { withCompileCache } from '../compile-cache.ts';
import { callSocket } from '../unix-http.ts';
import { CONTROL_PLANE_ADDRESS, CONTROL_PLANE_PORT, FABRIC_CIDRS } from './addresses.ts';
import { cgroupRoot } from './cgroups.ts';
import { ebpfPlace } from './ebpf.ts';
import type { FabricNode } from './fabric.ts';
import { controlPlaneNetns, nodeNetns, podFileName, podNetns } from './names.ts';
import { netnsPath } from './network-namespace.ts';
import { controlPlaneSocket, logFile, nodeRunFolder, readJson, type StateFolder } from './state-folder.ts';
import type { ProcessSpec } from './supervised-process.ts';
import {
  waypointLogFolder,
  waypointSocket,
  waypointSocketLink,
  waypointTokenFile,
} from './waypoint-files.ts';
import { type ReplicaRef, replicaPod, replicaProcessName } from './waypoint-plan.ts';
import { CONTROL_PLANE_URL, ZTUNNEL_GRACE_SECONDS, ztunnelEnvironment } from './ztunnel-environment.ts';

/** What all processes of a mesh are started with. */
export interface ProcessSettings {
  readonly state: StateFolder;
  /** Files and folders of configuration, as real paths. */
  readonly files: readonly string[];
  /** `24h`. */
  readonly svidTtl: string;
  readonly nodes: readonly FabricNode[];
  /** How workloads are captured; those of external nodes always by packet rules. */
  readonly capture: 'auto' | 'ebpf' | 'nftables';
  /** Open descriptor of the host's network namespace. */
  readonly hostNetnsFd: number;
  /** Name servers of the host, for names that are not the mesh's. */
  readonly nameServers: readonly string[];
}

const MAIN = join(import.meta.dirname, '..', 'main.ts');
/** Path of descriptor 3, which every process gets: see {@link ProcessSpec}. */
const HOST_NETNS = '/proc/self/fd/3';
const READY_TIMEOUT_MS = 2_000;
/** A waypoint drains for 25 s by itself. */
const WAYPOINT_GRACE_MS = 27_000;

/** Names of all processes of a mesh, in the order in which they are started. */
export function meshProcesses(settings: ProcessSettings): readonly ProcessSpec[] {
  const own = settings.nodes.filter(({ external }) => !external);
  return [
    controlPlane(settings),
    ...settings.nodes.map((node) => nodeAgent(settings, node)),
    ...own.map((node) => ztunnel(settings, node)),
  ];
}

/** Socket on which an instance of a node's ztunnel takes commands. `ztunnel.sock` beside it leads to the current one. */
export function ztunnelSocket(state: StateFolder, node: string, instance: number): string {
  return join(nodeRunFolder(state, node), `ztunnel.${instance}.sock`);
}

/** Name servers in the text of a resolv.conf. */
export function parseNameServers(resolvConf: string): readonly string[] {
  return resolvConf
    .split('\n')
    .flatMap((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? [])
    .filter(isIp);
}

/** Name servers of the host; none when it has no resolv.conf. */
export function hostNameServers(): readonly string[] {
  try {
    return parseNameServers(readFileSync('/etc/resolv.conf', 'utf8'));
  } catch {
    return [];
  }
}

function controlPlane(settings: ProcessSettings): ProcessSpec {
  const { state, files, svidTtl, nodes } = settings;
  return {
    ...common(settings, 'control-plane'),
    command: () => [
      ...inNetns(controlPlaneNetns(state.mesh)),
      ...[
        'control-plane',
        '--state',
        state.path,
        '--listen',
        `${CONTROL_PLANE_ADDRESS.v4}:${CONTROL_PLANE_PORT}`,
      ],
      ...['--svid-ttl', svidTtl, '--nodes', nodes.map(({ name }) => name).join(',')],
      ...files.flatMap((file) => ['-f', file]),
    ],
    env: withCompileCache(process.env),
    graceMs: 5_000,
    isReady: () => answersReady(controlPlaneSocket(state), '/status'),
  };
}

function nodeAgent(settings: ProcessSettings, node: FabricNode): ProcessSpec {
  const { state } = settings;
  return {
    ...common(settings, `node-agent/${node.name}`),
    command: () => [
      ...inNetns(nodeNetns(state.mesh, node.name)),
      ...['node-agent', '--state', state.path, '--node', node.name, '--control-plane', CONTROL_PLANE_URL],
      ...egress(settings),
      ...captureFlags(settings, node),
    ],
    env: withCompileCache(process.env),
    graceMs: 5_000,
    isReady: async () => readJson(join(nodeRunFolder(state, node.name), 'node-agent.json')) !== undefined,
  };
}

function ztunnel(settings: ProcessSettings, node: FabricNode): ProcessSpec {
  const { state } = settings;
  return {
    ...common(settings, `ztunnel/${node.name}`),
    command: (instance, predecessor) => [
      ...inNetns(nodeNetns(state.mesh, node.name)),
      ...['ztunnel', '--state', state.path, '--node', node.name, ...egress(settings)],
      ...['--fabric-cidrs', FABRIC_CIDRS.join(',')],
      ...['--access-log', join(state.path, 'logs', node.name, 'access.jsonl')],
      ...['--admin-socket', ztunnelSocket(state, node.name, instance)],
      ...(predecessor === undefined ? [] : ['--predecessor', ztunnelSocket(state, node.name, predecessor)]),
    ],
    env: withCompileCache({
      ...process.env,
      ...ztunnelEnvironment(state, node, settings.svidTtl),
      TULLE_BPF_DIRECTORY: ebpfPlace(state.mesh).directory,
    }),
    graceMs: ZTUNNEL_GRACE_SECONDS * 1000,
    socket: {
      link: join(nodeRunFolder(state, node.name), 'ztunnel.sock'),
      pathOf: (instance) => ztunnelSocket(state, node.name, instance),
    },
    isReady: (instance) => answersReady(ztunnelSocket(state, node.name, instance), '/healthz/ready'),
  };
}

/** The process of a replica of a waypoint, in its pod's network namespace. */
export function waypointProcess(settings: ProcessSettings, replica: ReplicaRef): ProcessSpec {
  const { state } = settings;
  const { namespace, name, index } = replica;
  const socketOf = (instance: number): string => waypointSocket(state, replica, index, instance);
  return {
    name: replicaProcessName(replica),
    logFile: logFile(state, `waypoint-${podFileName(replicaPod(replica))}`),
    cgroup: join(cgroupRoot(state.mesh), 'processes', `waypoint-${podFileName(replicaPod(replica))}`),
    hostNetnsFd: settings.hostNetnsFd,
    command: (instance, predecessor) => [
      ...inNetns(podNetns(state.mesh, replicaPod(replica))),
      ...['waypoint', '--state', state.path, '--namespace', namespace, '--name', name],
      ...['--instance', `${index}`, '--service-account', replica.serviceAccount],
      ...['--control-plane', CONTROL_PLANE_URL, '--roots-file', join(state.path, 'ca', 'bundle.pem')],
      ...trustDomainFlag(state),
      ...['--token-file', waypointTokenFile(state, replica), '--secret-ttl', settings.svidTtl],
      ...['--access-log', join(waypointLogFolder(state, replica), 'access.jsonl')],
      ...['--admin-socket', socketOf(instance)],
      ...(predecessor === undefined ? [] : ['--predecessor', socketOf(predecessor)]),
    ],
    env: withCompileCache(withoutSettings(process.env)),
    graceMs: WAYPOINT_GRACE_MS,
    socket: { link: waypointSocketLink(state, replica, index), pathOf: socketOf },
    isReady: (instance) => answersReady(socketOf(instance), '/healthz/ready'),
  };
}

/** As the control plane keeps it: the roots of an operator's authority need not name it. */
function trustDomainFlag({ path }: StateFolder): readonly string[] {
  const settings = readJson(join(path, 'config', 'settings.json'));
  const { trustDomain } = (settings ?? {}) as { readonly trustDomain?: unknown };
  return typeof trustDomain === 'string' ? ['--trust-domain', trustDomain] : [];
}

/** What a waypoint would take from the environment and is not given by flags is not meant for all waypoints of a mesh. */
function withoutSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { ALT_XDS_HOSTNAME: _, TRUST_DOMAIN: __, CLUSTER_ID: ___, ...others } = env;
  return others;
}

function common(
  { state, hostNetnsFd }: ProcessSettings,
  name: string,
): Pick<ProcessSpec, 'name' | 'logFile' | 'cgroup' | 'hostNetnsFd'> {
  const fileName = name.replace('/', '-');
  return {
    name,
    logFile: logFile(state, fileName),
    cgroup: join(cgroupRoot(state.mesh), 'processes', fileName),
    hostNetnsFd,
  };
}

function inNetns(netns: string): readonly string[] {
  return ['nsenter', `--net=${netnsPath(netns)}`, process.execPath, MAIN];
}

/** A ztunnel of another make knows of no programs in the kernel. */
function captureFlags({ state, capture }: ProcessSettings, node: FabricNode): readonly string[] {
  const { directory, cgroup } = ebpfPlace(state.mesh);
  const method = node.external ? ['nftables', '--capture-reason', 'external node'] : [capture];
  return ['--capture', ...method, '--bpf-directory', directory, '--cgroup', cgroup];
}

function egress({ nameServers }: ProcessSettings): readonly string[] {
  return ['--egress-netns', HOST_NETNS, '--name-servers', nameServers.join(',')];
}

/** Whether a process answers 200 and, where it says so in JSON, that it is ready. */
async function answersReady(socketPath: string, path: string): Promise<boolean> {
  try {
    const { status, body } = await callSocket({ socketPath, path, timeoutMs: READY_TIMEOUT_MS });
    const said = typeof body === 'object' && body !== null && 'ready' in body ? body.ready : true;
    return status === 200 && said === true;
  } catch {
    return false;
  }
}
