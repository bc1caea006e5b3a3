import { join } from 'node:path';
import { mustRun } from './command.ts';
import { PYTHON } from './socket-calls.ts';

const PROGRAM = join(import.meta.dirname, 'programs/bpf_objects.py');

/** Something of eBPF in the kernel. */
export interface BpfObject {
  readonly kind: 'prog' | 'map' | 'link';
  readonly id: number;
  readonly name: string;
}

/** Everything that is pinned below a directory, with the programs of links and the maps of programs. Needs root. */
export async function pinnedObjects(directory: string): Promise<readonly BpfObject[]> {
  return JSON.parse(await mustRun([PYTHON, '-B', PROGRAM, 'pinned', directory])) as BpfObject[];
}

/** Those that are still in the kernel, by their ids. */
export async function aliveObjects(objects: readonly BpfObject[]): Promise<readonly BpfObject[]> {
  return JSON.parse(await mustRun([PYTHON, '-B', PROGRAM, 'alive', JSON.stringify(objects)])) as BpfObject[];
}
