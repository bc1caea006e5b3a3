import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { endProcess } from './command.ts';
import { eventually } from './eventually.ts';
import type { Mesh, RunOptions } from './mesh.ts';
import { type LoadReport, loadCommand } from './programs/programs.ts';

/** A steady load (programs/load.ts) that runs as a workload. */
export interface Load {
  /** How it has gone so far. */
  readonly live: () => LoadReport;
  /** Waits until so many more calls, each on a new connection, have gone well. */
  readonly moreCalls: (count: number) => Promise<void>;
  /** Ends it; how it went. */
  readonly end: () => Promise<LoadReport>;
}

/** Where a load runs, and what it calls. */
export interface LoadOptions extends Pick<RunOptions, 'namespace' | 'name' | 'node'> {
  readonly url: string;
  /** `HOST:PORT` of an echo, for one long connection; default: there is none. */
  readonly tcp?: string;
  /** Default: its namespace is in the mesh. */
  readonly enrolled?: boolean;
}

const STARTS_WITHIN_MS = 30_000;
const GOES_ON_WITHIN_MS = 40_000;

/** Starts one; resolves when its calls go well. */
export async function startLoad(mesh: Mesh, options: LoadOptions): Promise<Load> {
  const { url, tcp = '', enrolled = true, ...at } = options;
  const file = join(mesh.directory, `${at.namespace}-${at.name}.json`);
  const { child } = await mesh.run({ ...at, command: loadCommand(url, tcp, file) }, enrolled);
  const read = (path: string): LoadReport => JSON.parse(readFileSync(path, 'utf8')) as LoadReport;
  const live = (): LoadReport => read(`${file}.live`);
  const runs = (): boolean => {
    const soFar = live();
    if (soFar.short.ok > 20 && (tcp === '' || soFar.long.ok > 5)) return true;
    throw new Error(`so far ${JSON.stringify(soFar)}`);
  };
  await eventually(`the load ${at.name} runs`, runs, STARTS_WITHIN_MS);
  return {
    live,
    moreCalls: async (count) => {
      const start = live().short.ok;
      const isEnough = (): boolean => live().short.ok >= start + count;
      await eventually(`${count} more calls of ${at.name}`, isEnough, GOES_ON_WITHIN_MS);
    },
    end: async () => {
      await endProcess(child);
      return read(file);
    },
  };
}

/** Runs one while something happens; how it went. */
export async function underLoad(
  mesh: Mesh,
  options: LoadOptions,
  happen: (moreCalls: Load['moreCalls']) => Promise<void>,
): Promise<LoadReport> {
  const load = await startLoad(mesh, options);
  await happen(load.moreCalls);
  return await load.end();
}

/** What failed, each with its kind of call and its time. */
export function failuresOf(report: LoadReport): readonly string[] {
  return Object.entries(report).flatMap(([kind, { errors }]) => errors.map((error) => `${kind} ${error}`));
}
