import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { endProcess } from './command.ts';
import { eventually } from './eventually.ts';
import type { Mesh, RunOptions } from './mesh.ts';
import { trafficCommand } from './programs/programs.ts';
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
