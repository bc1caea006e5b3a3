import { join } from 'node:path';
import type { Netns } from './netns.ts';

const PROGRAM = join(import.meta.dirname, 'programs/netns-probe.ts');

/** Where a probe goes, and from which of the namespace's addresses. */
export interface ProbeTarget {
  readonly host: string;
  readonly port: number;
  readonly source?: string;
}

/** What came of it: `connected`, or an error code such as ECONNREFUSED or `timeout` (after 2 s). */
export async function probeTcp(netns: Netns, target: ProbeTarget): Promise<string> {
  return await run(netns, 'tcp', target, 1);
}

/** Sends datagrams from one socket; each one's answer, `timeout` (after 1 s) or an error code, joined by commas. */
export async function probeUdp(netns: Netns, target: ProbeTarget, count = 1): Promise<string> {
  return await run(netns, 'udp', target, count);
}

/** A UDP socket inside that asks `host:port` again for each line written to its standard input. */
export function udpProbeCommand(target: ProbeTarget): readonly string[] {
  return [process.execPath, PROGRAM, 'udp', target.host, `${target.port}`, '', '0'];
}

async function run(netns: Netns, kind: string, target: ProbeTarget, count: number): Promise<string> {
  const { host, port, source = '' } = target;
  const args = [PROGRAM, kind, host, `${port}`, source, `${count}`];
  return (await netns.exec(process.execPath, args)).trim();
}
