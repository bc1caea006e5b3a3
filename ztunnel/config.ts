import { existsSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { parseArgs } from 'node:util';
import type { HostPort } from '#api/address.ts';
import {
  cidrs,
  durationMs,
  flag,
  httpsAddress,
  list,
  memorySize,
  nameServers,
  type PemSource,
  pemSource,
  type Settings,
  type TokenSource,
  text,
  tokenSource,
  wholeNumber,
} from './config-values.ts';
import { MEMORY_BUDGET_BYTES } from './hbone/memory-budget.ts';
import type { WorkerConfig } from './worker-messages.ts';

/** How one ztunnel runs. Made by {@link parseZtunnelConfig}, printed at start without what is secret. */
export interface ZtunnelConfig {
  /** Empty: every workload is local. */
  readonly node: string;
  readonly network: string;
  readonly clusterId: string;
  readonly clusterDomain: string;
  readonly xds: ControlPlaneConfig;
  readonly ca: ControlPlaneConfig;
  readonly token?: TokenSource;
  /** Who the ztunnel itself is: fact sheet ambient-wire.md, 4.2. */
  readonly proxy: {
    readonly ip: string;
    readonly podName: string;
    readonly podNamespace: string;
    readonly serviceAccount: string;
    readonly metadata: ReadonlyMap<string, string>;
  };
  readonly zdsSocket: string;
  /** How long certificates are asked for. */
  readonly secretTtlMs: number;
  /** Whether applications see their callers' addresses. */
  readonly originalSource: boolean;
  readonly ipv6: boolean;
  readonly dns: {
    readonly enabled: boolean;
    /** Absent: those of /etc/resolv.conf. */
    readonly nameServers?: readonly HostPort[];
    readonly preferredNamespace?: string;
    /** Whether names of the cluster's domain that are not known here do not exist; else name servers are asked. */
    readonly ownsClusterDomain: boolean;
  };
  /** How long connections may go on after a stop was asked for. */
  readonly drainMs: number;
  readonly workers: number;
  readonly hbone: WorkerConfig['hbone'];
  /** Memory for bytes that wait for slow readers, of all workers together. */
  readonly memoryBytes: number;
  /** Path of the namespace from which connections that leave the mesh are dialled; absent: each pod's own. */
  readonly egressNetns?: string;
  readonly fabricCidrs: readonly string[];
  readonly missingPolicy: 'deny' | 'allow';
  /** Absent: to standard output. */
  readonly accessLog?: string;
  /** Path of the socket that takes orders; absent: none. */
  readonly adminSocket?: string;
  /** Where a node agent pins the mesh's eBPF maps: `/sys/fs/bpf/tulle/MESH`. Absent: pods are not captured by eBPF. */
  readonly bpfDirectory?: string;
  /** Path of the order socket of the ztunnel that this one replaces; absent: it replaces none. */
  readonly predecessor?: string;
  readonly ports: { readonly admin: number; readonly stats: number; readonly readiness: number };
  readonly logLevel: LogLevel;
  /** Settings that are known and do nothing here, to be logged. */
  readonly ignored: readonly string[];
}

/** How one service of the control plane is reached. */
export interface ControlPlaneConfig {
  /** `https://host:port`. */
  readonly address: string;
  readonly roots: PemSource;
  /** Another name that its certificate may have. */
  readonly alternativeName?: string;
  /** Further request metadata. */
  readonly headers: ReadonlyMap<string, string>;
}

export const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Thrown for settings that cannot be, with all that is wrong, a line each. */
export class ZtunnelConfigError extends Error {
  override readonly name = 'ZtunnelConfigError';
  readonly exitCode = 2;
}

/** Settings of a stock ztunnel that would change what it does and that this one does not have. */
const REFUSED: ReadonlyMap<string, (value: string) => boolean> = new Map([
  ['PROXY_MODE', (value) => value.toLowerCase() !== 'shared'],
  ['XDS_ON_DEMAND', isTrue],
  ['FAKE_CA', isTrue],
  ['LOCAL_XDS_PATH', () => true],
  ['LOCAL_XDS', () => true],
  ['CRL_PATH', () => true],
  ['TLS12_ENABLED', isTrue],
  ['UNSTABLE_ENABLE_SOCKS5', isTrue],
  ['ENABLE_PROXY', (value) => value.toLowerCase() === 'false'],
  ['INPOD_PORT_REUSE', (value) => value.toLowerCase() === 'false'],
  ['PACKET_MARK', (value) => Number(value) !== 0x539],
]);

/** Settings of a stock ztunnel that do nothing here. */
const IGNORED: readonly string[] = [
  'PROXY_CONFIG',
  'PROXY_WORKLOAD_INFO',
  'COMPLIANCE_POLICY',
  'AUTHZ_POLICY_INFO_LOGGING',
  'LOCALHOST_APP_TUNNEL',
  'ENABLE_RESPONSE_BAGGAGE',
  'DNS_PROXY_ADDR',
  'KEEPALIVE_TIME',
  'KEEPALIVE_INTERVAL',
  'KEEPALIVE_RETRIES',
  'KEEPALIVE_ENABLED',
  'USER_TIMEOUT_ENABLED',
  'ZTUNNEL_CPU_LIMIT',
];

const OPTIONS = {
  state: { type: 'string' },
  node: { type: 'string' },
  'access-log': { type: 'string' },
  'admin-socket': { type: 'string' },
  predecessor: { type: 'string' },
  'bpf-directory': { type: 'string' },
  'egress-netns': { type: 'string' },
  'fabric-cidrs': { type: 'string' },
  'name-servers': { type: 'string' },
  'missing-policy': { type: 'string' },
  workers: { type: 'string' },
  'memory-budget': { type: 'string' },
} as const;

type Flags = { readonly [Name in keyof typeof OPTIONS]?: string };

/**
 * Reads flags and the environment of a stock ztunnel (fact sheet ambient-wire.md, 2.3). With `--state DIR --node N` what
 * is not set comes from the state folder.
 * @throws ZtunnelConfigError
 */
export function parseZtunnelConfig(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): ZtunnelConfig {
  const flags = parseFlags(argv);
  const named = flags.node === undefined ? {} : { NODE_NAME: flags.node };
  const settings: Settings = { env: { ...stateDefaults(flags), ...withoutEmpty(env), ...named }, faults: [] };
  noteRefused(settings);
  const config = readConfig(settings, flags);
  if (settings.faults.length > 0) throw new ZtunnelConfigError(settings.faults.join('\n'));
  return config;
}

function readConfig(settings: Settings, flags: Flags): ZtunnelConfig {
  const token = text(settings, 'AUTH_TOKEN') ?? existing('./var/run/secrets/tokens/istio-token');
  const servers = flags['name-servers'];
  const preferredNamespace = text(settings, 'PREFERED_SERVICE_NAMESPACE');
  const predecessor = flags.predecessor ?? text(settings, 'TULLE_PREDECESSOR');
  return {
    node: text(settings, 'NODE_NAME') ?? '',
    network: text(settings, 'NETWORK') ?? '',
    clusterId: text(settings, 'CLUSTER_ID') ?? text(settings, 'ISTIO_META_CLUSTER_ID') ?? 'Kubernetes',
    clusterDomain: text(settings, 'CLUSTER_DOMAIN') ?? 'cluster.local',
    xds: controlPlane(settings, 'XDS'),
    ca: controlPlane(settings, 'CA'),
    ...(token !== undefined && { token: tokenSource(token) }),
    proxy: {
      ip: text(settings, 'INSTANCE_IP') ?? '1.1.1.1',
      podName: text(settings, 'POD_NAME') ?? 'ztunnel',
      podNamespace: text(settings, 'POD_NAMESPACE') ?? 'istio-system',
      serviceAccount: text(settings, 'SERVICE_ACCOUNT') ?? 'ztunnel',
      metadata: prefixed(settings, 'ISTIO_META_'),
    },
    zdsSocket: text(settings, 'INPOD_UDS') ?? '/var/run/ztunnel/ztunnel.sock',
    secretTtlMs: durationMs(settings, 'SECRET_TTL', 86_400_000),
    originalSource: flag(settings, 'ENABLE_ORIG_SRC', true),
    ipv6: flag(settings, 'IPV6_ENABLED', true),
    dns: {
      enabled: (text(settings, 'ISTIO_META_DNS_CAPTURE') ?? 'true') === 'true',
      ...(servers !== undefined && { nameServers: nameServers(settings, '--name-servers', list(servers)) }),
      ...(preferredNamespace !== undefined && { preferredNamespace }),
      ownsClusterDomain: flags.state !== undefined,
    },
    drainMs: durationMs(settings, 'CONNECTION_TERMINATION_DEADLINE', drainWithin(settings)),
    workers: workerCount(settings, flags),
    hbone: hbone(settings),
    memoryBytes: memorySize(settings, '--memory-budget', flags['memory-budget'], MEMORY_BUDGET_BYTES),
    ...pathFlags(settings, flags),
    ...(predecessor !== undefined && { predecessor }),
    fabricCidrs: cidrs(settings, '--fabric-cidrs', list(flags['fabric-cidrs'])),
    missingPolicy: missingPolicy(settings, flags),
    ports: { admin: 15000, stats: 15020, readiness: 15021 },
    logLevel: logLevel(settings),
    ignored: IGNORED.filter((name) => text(settings, name) !== undefined),
  };
}

function parseFlags(argv: readonly string[]): Flags {
  try {
    return parseArgs({ args: [...argv], options: OPTIONS, strict: true }).values;
  } catch (cause) {
    throw new ZtunnelConfigError(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

/** What the state folder of a mesh on one machine holds for a node's ztunnel. */
function stateDefaults({ state, node }: Flags): Readonly<Record<string, string>> {
  if (node === undefined) return {};
  if (state === undefined) return { POD_NAME: `ztunnel-${node}` };
  return {
    POD_NAME: `ztunnel-${node}`,
    XDS_ADDRESS: STATE_CONTROL_PLANE,
    CA_ADDRESS: STATE_CONTROL_PLANE,
    XDS_ROOT_CA: join(state, 'ca', 'bundle.pem'),
    CA_ROOT_CA: join(state, 'ca', 'bundle.pem'),
    AUTH_TOKEN: join(state, 'tokens', node),
    INPOD_UDS: join(state, 'run', node, 'zds.sock'),
  };
}

/** Address of the control plane inside the mesh's own namespaces. */
const STATE_CONTROL_PLANE = 'https://10.240.0.2:15012';

function pathFlags(
  settings: Settings,
  flags: Flags,
): Pick<ZtunnelConfig, 'accessLog' | 'adminSocket' | 'bpfDirectory' | 'egressNetns'> {
  const { state, node } = flags;
  const fromState = state !== undefined && node !== undefined;
  if (state !== undefined && node === undefined) settings.faults.push('--state needs --node');
  const accessLog =
    flags['access-log'] ?? (fromState ? join(state, 'logs', node, 'access.jsonl') : undefined);
  const adminSocket =
    flags['admin-socket'] ?? (fromState ? join(state, 'run', node, 'ztunnel.sock') : undefined);
  const egressNetns = flags['egress-netns'];
  const bpfDirectory = flags['bpf-directory'] ?? text(settings, 'TULLE_BPF_DIRECTORY');
  if (bpfDirectory !== undefined && !isAbsolute(bpfDirectory)) {
    settings.faults.push(`--bpf-directory: ${JSON.stringify(bpfDirectory)} is not an absolute path`);
  }
  return {
    ...(accessLog !== undefined && { accessLog }),
    ...(adminSocket !== undefined && { adminSocket }),
    ...(egressNetns !== undefined && { egressNetns }),
    ...(bpfDirectory !== undefined && { bpfDirectory }),
  };
}

function controlPlane(settings: Settings, service: 'XDS' | 'CA'): ControlPlaneConfig {
  const inCluster = text(settings, 'KUBERNETES_SERVICE_HOST') !== undefined;
  const usual = inCluster ? 'https://istiod.istio-system.svc:15012' : 'https://localhost:15012';
  const name = `${service}_ADDRESS`;
  const alternativeName = text(settings, `ALT_${service}_HOSTNAME`);
  return {
    address: httpsAddress(settings, name, text(settings, name) ?? usual),
    roots: pemSource(text(settings, `${service}_ROOT_CA`) ?? './var/run/secrets/istio/root-cert.pem'),
    ...(alternativeName !== undefined && { alternativeName }),
    headers: prefixed(settings, `${service}_HEADER_`),
  };
}

function hbone(settings: Settings): WorkerConfig['hbone'] {
  return {
    streamWindowBytes: wholeNumber(settings, 'HTTP2_STREAM_WINDOW_SIZE', 4 * 1024 * 1024, 65_535),
    connectionWindowBytes: wholeNumber(settings, 'HTTP2_CONNECTION_WINDOW_SIZE', 16 * 1024 * 1024, 65_535),
    frameBytes: wholeNumber(settings, 'HTTP2_FRAME_SIZE', 1024 * 1024, 16_384),
    maxStreamsPerConnection: wholeNumber(settings, 'POOL_MAX_STREAMS_PER_CONNECTION', 100, 1),
    poolIdleMs: durationMs(settings, 'POOL_UNUSED_RELEASE_TIMEOUT', 300_000),
    pingIntervalMs: 10_000,
    pingTimeoutMs: 20_000,
  };
}

/** Leaves the rest of the grace period for ending: as a stock ztunnel computes it. */
function drainWithin(settings: Settings): number {
  const grace = wholeNumber(settings, 'TERMINATION_GRACE_PERIOD_SECONDS', 0);
  if (text(settings, 'TERMINATION_GRACE_PERIOD_SECONDS') === undefined) return 5000;
  return Math.max(1, grace - (grace > 10 ? 5 : 1)) * 1000;
}

function workerCount(settings: Settings, flags: Flags): number {
  const env = { ...settings.env, ...(flags.workers !== undefined && { '--workers': flags.workers }) };
  const name = flags.workers === undefined ? 'ZTUNNEL_WORKER_THREADS' : '--workers';
  return wholeNumber({ ...settings, env }, name, 1, 1);
}

function missingPolicy(settings: Settings, flags: Flags): 'deny' | 'allow' {
  const value = flags['missing-policy'] ?? 'deny';
  if (value === 'deny' || value === 'allow') return value;
  settings.faults.push(`--missing-policy: ${JSON.stringify(value)} is neither deny nor allow`);
  return 'deny';
}

/** The level alone (`info`), or the first of a stock ztunnel's list (`debug,h2=info`). */
function logLevel(settings: Settings): LogLevel {
  const wanted = list(text(settings, 'RUST_LOG')).find((item) => !item.includes('='));
  if (wanted === undefined) return 'info';
  const level = LOG_LEVELS.find((each) => each === wanted.toLowerCase());
  if (level === undefined) settings.faults.push(`RUST_LOG: ${wanted} is none of ${LOG_LEVELS.join(', ')}`);
  return level ?? 'info';
}

function prefixed({ env }: Settings, prefix: string): ReadonlyMap<string, string> {
  const found = Object.entries(env).filter(([name]) => name.startsWith(prefix) && name !== prefix);
  return new Map(found.map(([name, value]) => [name.slice(prefix.length), value ?? '']));
}

function noteRefused(settings: Settings): void {
  for (const [name, isRefused] of REFUSED) {
    const value = text(settings, name);
    if (value !== undefined && isRefused(value)) {
      settings.faults.push(`${name}: ${JSON.stringify(value)} is not supported; unset it`);
    }
  }
}

function withoutEmpty(env: Settings['env']): Settings['env'] {
  return Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ''));
}

function existing(path: string): string | undefined {
  return existsSync(path) ? path : undefined;
}

function isTrue(value: string): boolean {
  return value.toLowerCase() === 'true';
}
