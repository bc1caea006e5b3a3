import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { inCgroup } from '#cli/local/cgroups.ts';
import { endProcess, mustRun } from './command.ts';
import { eventually } from './eventually.ts';
import type { Mesh, WorkloadStatus } from './mesh.ts';
import { PYTHON } from './socket-calls.ts';

const BYPASS = join(import.meta.dirname, 'programs/bypass.py');
const OBSERVE = join(import.meta.dirname, 'programs/observe.py');

/** One try to get round the mesh: see programs/bypass.py. */
export interface Attempt {
  readonly way: string;
  readonly host: string;
  /** Nobody else's: what leaves the pod is told apart by it. */
  readonly port: number;
  /** The pod's address of that family. */
  readonly own: string;
  /** Who is to get a packet that is routed by its source. */
  readonly via?: string;
}

/** Command that makes these attempts and prints what came of each: an error's name, `sent` or `answered`. */
export function bypassCommand(attempts: readonly Attempt[]): readonly string[] {
  return [PYTHON, '-B', BYPASS, JSON.stringify(attempts)];
}

/** Makes the attempts from inside a workload. */
export async function tryFrom(
  mesh: Mesh,
  workload: string,
  attempts: readonly Attempt[],
): Promise<readonly string[]> {
  const { stdout, stderr } = await mesh.exec(workload, bypassCommand(attempts), 120_000);
  if (stdout === '') throw new Error(`the attempts from ${workload} failed: ${stderr}`);
  return JSON.parse(stdout) as string[];
}

/**
 * Makes the attempts in a workload's network namespace as the host's root, `member`: in its cgroup, or `intruder`: as
 * `ip netns exec` enters it, in the one of the tests.
 */
export async function tryInside(
  { netns, cgroup }: Pick<WorkloadStatus, 'netns' | 'cgroup'>,
  as: 'member' | 'intruder',
  attempts: readonly Attempt[],
): Promise<readonly string[]> {
  const command = ['ip', 'netns', 'exec', netns, ...bypassCommand(attempts)];
  return JSON.parse(
    await mustRun(as === 'member' ? inCgroup(cgroup, command) : command, 120_000),
  ) as string[];
}

/** A packet that left a pod: see programs/observe.py. */
export interface ObservedPacket {
  readonly from: string;
  readonly to: string;
  readonly protocol: number;
  readonly fromPort: number;
  readonly toPort: number;
  readonly flags: number;
  readonly isFragment: boolean;
  readonly marker: number;
}

/** Sees what leaves the pods of a node, in whatever form. */
export interface Observer extends AsyncDisposable {
  readonly packets: readonly ObservedPacket[];
  /** What left the pods because of that attempt: a SYN or a datagram to its port, or its data, anywhere. */
  readonly leakOf: (attempt: Attempt) => readonly ObservedPacket[];
  /** Waits until the last attempt has left its pod, and with it everything that left before. */
  readonly until: (last: Attempt) => Promise<void>;
}

/** Starts to observe in a node's namespace, by its name. */
export async function startObserver(netns: string): Promise<Observer> {
  const child = spawn('ip', ['netns', 'exec', netns, PYTHON, '-B', OBSERVE, 'pod-'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const packets: ObservedPacket[] = [];
  const lines = createInterface({ input: child.stdout });
  await once(lines, 'line');
  lines.on('line', (line) => packets.push(JSON.parse(line) as ObservedPacket));
  const leakOf: Observer['leakOf'] = ({ port }) =>
    packets.filter((packet) => packet.marker === port || opens(packet, port));
  return {
    packets,
    leakOf,
    until: async (last) => {
      await eventually('the last attempt is seen', () => leakOf(last).length > 0);
    },
    [Symbol.asyncDispose]: async () => void (await endProcess(child, 'SIGKILL')),
  };
}

/** A workload's address of a family. */
export function addressOf({ addresses }: Pick<WorkloadStatus, 'addresses'>, family: 'v4' | 'v6'): string {
  return addresses.find((address) => address.includes(':') === (family === 'v6')) ?? '';
}

const TCP = 6;
const SYN = 0x02;
const ACK = 0x10;

function opens(packet: ObservedPacket, port: number): boolean {
  if (packet.toPort !== port) return false;
  return packet.protocol !== TCP || (packet.flags & (SYN | ACK)) === SYN;
}
