import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { endProcess } from './command.ts';
import { eventually } from './eventually.ts';
import type { Mesh, RunOptions } from './mesh.ts';
import { trafficCommand, trafficServerCommand } from './programs/programs.ts';
import type { TrafficLine, TrafficLoop } from './programs/traffic-lines.ts';

/** A client of mixed traffic (programs/traffic.ts) that runs as a workload. */
export interface Traffic {
  /** What it has written since the last call, in turn. */
  readonly read: () => readonly TrafficLine[];
  /** Ends it; what is left is read once more. */
  readonly end: () => Promise<void>;
}

/** Starts traffic as a workload of the mesh, enrolled; resolves when every loop has had its first success. */
export async function startTraffic(
  mesh: Mesh,
  at: Pick<RunOptions, 'namespace' | 'name' | 'node' | 'serviceAccount'>,
  loops: readonly TrafficLoop[],
): Promise<Traffic> {
  const file = join(mesh.directory, `${at.name}.jsonl`);
  const { child } = await mesh.run({ ...at, command: trafficCommand({ file, loops }) }, true);
  const read = lineReader<TrafficLine>(file);
  const seen: TrafficLine[] = [];
  const succeeded = new Set<string>();
  await eventually(
    `all traffic of ${at.name} runs`,
    () => {
      for (const line of read()) {
        seen.push(line);
        if (line.what === 'progress' && Object.keys(line.ok).length > 0) succeeded.add(loopOf(line));
      }
      return loops.every(({ name }) => succeeded.has(name));
    },
    30_000,
  );
  return {
    read: () => [...seen.splice(0), ...read()],
    end: async () => void (await endProcess(child)),
  };
}

/** Servers of all kinds of traffic, each a name, the app that it is of, which is its account, too, and a node. */
export type TrafficServers = readonly (readonly [name: string, app: string, node: string])[];

/** Starts them one after the other, enrolled. */
export async function startTrafficServers(
  mesh: Mesh,
  namespace: string,
  servers: TrafficServers,
): Promise<void> {
  for (const [name, app, node] of servers) {
    const labels = { app, version: name };
    const command = trafficServerCommand(name);
    await mesh.run({ namespace, name, serviceAccount: app, node, labels, command }, true);
  }
}

/** The Service of an app of such servers. */
export function trafficServiceYaml(namespace: string, app: string, labels = ''): string {
  return `apiVersion: v1
kind: Service
metadata: {name: ${app}, namespace: ${namespace}, labels: {${labels}}}
spec:
  selector: {app: ${app}}
  ports: [{name: http, port: 8080}, {name: tcp, port: 9000}, {name: tcp-bulk, port: 9100}, {name: grpc, port: 7070}]
---
`;
}

const PORTS = { new: 8080, kept: 8080, websocket: 8080, tcp: 9000, bulk: 9100, grpc: 7070 } as const;

/** A loop of one kind to a service (`NAME.NAMESPACE`), which is named by both. */
export function trafficLoop(service: string, kind: keyof typeof PORTS, pauseMs: number): TrafficLoop {
  return { name: `${service.split('.')[0]} ${kind}`, kind, target: `${service}:${PORTS[kind]}`, pauseMs };
}

/** The loop that a line is about, whichever of its copies wrote it. */
export function loopOf(line: TrafficLine): string {
  return line.loop.replace(/#\d+$/, '');
}

/** How much had gone well at an answer. */
export function okOf(line: TrafficLine): number {
  return line.what === 'progress' ? Object.values(line.ok).reduce((sum, count) => sum + count, 0) : 0;
}

/** Reads whole lines of JSON that a file has got since the last call; none while there is no file. */
export function lineReader<T>(file: string): () => readonly T[] {
  let offset = 0;
  let rest = '';
  return () => {
    const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
    if (size <= offset) return [];
    const bytes = Buffer.alloc(size - offset);
    const fd = openSync(file, 'r');
    try {
      offset += readSync(fd, bytes, 0, bytes.length, offset);
    } finally {
      closeSync(fd);
    }
    const lines = (rest + bytes.toString()).split('\n');
    rest = lines.pop() ?? '';
    return lines.map((line) => JSON.parse(line) as T);
  };
}
