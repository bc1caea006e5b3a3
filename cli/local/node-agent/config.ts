import { parseArgs } from 'node:util';
import { type HostPort, isIp } from '#api/address.ts';
import type { CaptureChoice } from '#ztunnel/capture/choose-capture.ts';

/** Flags that cannot be; the message lists every one. The process ends with `exitCode`. */
export class NodeAgentConfigError extends Error {
  override readonly name = 'NodeAgentConfigError';
  readonly exitCode = 2;
}

/** Settings of a node agent. */
export interface NodeAgentConfig {
  readonly stateDirectory: string;
  /** Name of its node; a part of paths. */
  readonly node: string;
  /** `https://host:port` of the workload API. */
  readonly controlPlane: string;
  /** Path of the namespace from which names that are not the mesh's are asked for; absent: its own. */
  readonly egressNetns?: string;
  /** Asked in this order for such names. */
  readonly nameServers: readonly HostPort[];
  readonly logLevel: (typeof LOG_LEVELS)[number];
  readonly capture: CaptureChoice;
}

const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const;
const CAPTURE_METHODS = ['auto', 'ebpf', 'nftables'] as const;
const DEFAULT_STATE = '.tulle';
const NODE_NAME = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

const OPTIONS = {
  state: { type: 'string', default: DEFAULT_STATE },
  node: { type: 'string' },
  'control-plane': { type: 'string' },
  'egress-netns': { type: 'string' },
  'name-servers': { type: 'string', default: '' },
  'log-level': { type: 'string' },
  capture: { type: 'string', default: 'auto' },
  'capture-reason': { type: 'string' },
  'bpf-directory': { type: 'string' },
  cgroup: { type: 'string' },
} as const;

/**
 * Reads `--state DIR --node NAME --control-plane URL [--egress-netns PATH] [--name-servers a,b] [--log-level info]
 * [--capture auto|ebpf|nftables] [--capture-reason TEXT] [--bpf-directory DIR --cgroup DIR]`. The level can also be set by
 * LOG_LEVEL.
 * @throws NodeAgentConfigError with all faults
 */
export function parseNodeAgentConfig(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): NodeAgentConfig {
  const flags = readFlags(argv);
  const faults: string[] = [];
  const { node = '', 'control-plane': controlPlane = '', 'egress-netns': egressNetns } = flags;
  if (!NODE_NAME.test(node)) faults.push(`--node: ${JSON.stringify(node)} is not the name of a node`);
  if (URL.parse(controlPlane)?.protocol !== 'https:') {
    faults.push(`--control-plane: ${JSON.stringify(controlPlane)} is not an https:// address`);
  }
  const nameServers = flags['name-servers'].split(',').filter((text) => text.trim() !== '');
  for (const server of nameServers) {
    if (!isIp(server.trim())) faults.push(`--name-servers: ${JSON.stringify(server)} is not an IP address`);
  }
  const wanted = flags['log-level'] ?? env['LOG_LEVEL'] ?? 'info';
  const logLevel = LOG_LEVELS.find((level) => level === wanted);
  if (logLevel === undefined) faults.push(`--log-level: ${wanted} is none of ${LOG_LEVELS.join(', ')}`);
  const capture = readCapture(flags, faults);
  if (faults.length > 0) throw new NodeAgentConfigError(faults.join('\n'));
  return {
    stateDirectory: flags.state,
    node,
    controlPlane,
    ...(egressNetns === undefined ? {} : { egressNetns }),
    nameServers: nameServers.map((ip) => ({ ip: ip.trim(), port: 53 })),
    logLevel: logLevel ?? 'info',
    capture,
  };
}

function readCapture(flags: Flags, faults: string[]): CaptureChoice {
  const { 'capture-reason': reason, 'bpf-directory': directory, cgroup } = flags;
  const method = CAPTURE_METHODS.find((one) => one === flags.capture);
  if (method === undefined)
    faults.push(`--capture: ${flags.capture} is none of ${CAPTURE_METHODS.join(', ')}`);
  if ((directory === undefined) !== (cgroup === undefined)) {
    faults.push('--bpf-directory and --cgroup: one needs the other');
  }
  if (method === 'ebpf' && directory === undefined) faults.push('--capture ebpf: --bpf-directory is missing');
  return {
    method: method ?? 'auto',
    ...(reason === undefined ? {} : { reason }),
    ...(directory === undefined || cgroup === undefined ? {} : { ebpf: { directory, cgroup } }),
  };
}

type Flags = ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>['values'];

function readFlags(argv: readonly string[]): Flags {
  try {
    return parseArgs({ args: [...argv], options: OPTIONS, strict: true }).values;
  } catch (cause) {
    throw new NodeAgentConfigError(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}
