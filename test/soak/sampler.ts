import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { processIdsBelow } from '#test/kit/operator.ts';
import type { Probe } from './heap-probe.ts';
import type { Measure, Sample } from './judge.ts';
import { type KernelPlaces, kernelCounts } from './kernel.ts';

/** What is sampled. */
export interface Sampled {
  /** Folder of the cgroups of the mesh's processes. */
  readonly processes: string;
  /** Further processes, by role. */
  readonly others: () => ReadonlyMap<string, number>;
  /** Folder of {@link Probe}s. */
  readonly probes: string;
  /** Sockets that answer `/metrics`, by role. */
  readonly sockets: ReadonlyMap<string, string>;
  readonly kernel: () => KernelPlaces;
}

/** One sample of everything. A process that has just ended is left out. */
export async function takeSamples(sampled: Sampled, at: number): Promise<readonly Sample[]> {
  const living: [string, number][] = [
    ...[...processIdsBelow(sampled.processes)].flatMap(([role, pids]) =>
      pids.map((pid): [string, number] => [role, pid]),
    ),
    ...sampled.others(),
  ];
  const samples: Sample[] = [];
  const add = (role: string, pid: number, values: Readonly<Partial<Record<Measure, number>>>): void => {
    for (const [measure, value] of Object.entries(values))
      samples.push({ at, role, pid, measure: measure as Measure, value });
  };
  for (const [role, pid] of living) add(role, pid, { ...ofProcess(pid), ...ofProbes(sampled.probes, pid) });
  for (const [role, path] of sampled.sockets) {
    const [first] = living.filter(([name]) => name === role).slice(-1);
    const connections = await openConnections(path);
    if (first !== undefined && connections !== undefined) add(role, first[1], { connections });
  }
  add('kernel', 0, await kernelCounts(sampled.kernel()));
  return samples;
}

const KIB_IN_MIB = 1024;

function ofProcess(pid: number): Readonly<Partial<Record<Measure, number>>> {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const field = (name: string): number =>
      Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0);
    return {
      rss: field('VmRSS') / KIB_IN_MIB,
      threads: field('Threads'),
      descriptors: readdirSync(`/proc/${pid}/fd`).length,
    };
  } catch {
    return {};
  }
}

/** Of all threads of a process together. */
function ofProbes(folder: string, pid: number): Readonly<Partial<Record<Measure, number>>> {
  const probes = filesOf(folder)
    .filter((name) => name.startsWith(`${pid}-`) && name.endsWith('.json'))
    .flatMap((name) => readProbe(join(folder, name)));
  if (probes.length === 0) return {};
  const sum = (of: (probe: Probe) => number): number => probes.reduce((total, probe) => total + of(probe), 0);
  const mebibytes = 2 ** 20;
  return {
    heap: sum(({ heapUsed }) => heapUsed) / mebibytes,
    external: sum(({ external }) => external) / mebibytes,
    handles: sum(({ handles }) => handles),
  };
}

function filesOf(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function readProbe(file: string): readonly Probe[] {
  try {
    return [JSON.parse(readFileSync(file, 'utf8')) as Probe];
  } catch {
    return [];
  }
}

/** Gauges of what is open: connections of a ztunnel; sessions, tunnels and connections of a waypoint. */
const OPEN =
  /^(?:istio_tcp_sockets_open|tulle_waypoint_(?:sessions|tunnels|upstream_connections))(?:\{[^}]*\})? (\d+)/gm;

/** Undefined while it does not answer. */
async function openConnections(socketPath: string): Promise<number | undefined> {
  try {
    const request = http.get({
      socketPath,
      path: '/metrics',
      agent: false,
      signal: AbortSignal.timeout(3000),
    });
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    const metrics = await text(response);
    return [...metrics.matchAll(OPEN)].reduce((sum, [, count]) => sum + Number(count), 0);
  } catch {
    return undefined;
  }
}
