import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { libbpf } from '#bpf/libbpf.ts';
import { BpfMap, mapInfo } from '#bpf/maps.ts';
import { runCommand } from '#test/kit/command.ts';
import { sys } from '#ztunnel/capture/native.ts';
import type { Measure } from './judge.ts';

/** Where a mesh's things in the kernel are. */
export interface KernelPlaces {
  /** Name of the mesh: what the names of its namespaces begin with. */
  readonly mesh: string;
  readonly cgroup: string;
  /** Network namespaces with packet rules, by name. */
  readonly ruled: readonly string[];
  /** A process in each namespace whose sockets are counted. */
  readonly pids: readonly number[];
}

/** What the kernel holds of a mesh. */
export async function kernelCounts(
  places: KernelPlaces,
): Promise<Readonly<Partial<Record<Measure, number>>>> {
  const pins = `/sys/fs/bpf/tulle/${places.mesh}`;
  return {
    namespaces: readdirSync('/run/netns').filter((name) => name.startsWith(places.mesh)).length,
    cgroups: foldersBelow(places.cgroup),
    'map entries': entriesOf(pins),
    'bpf objects': filesBelow(pins).length,
    'nft lines': await ruleLines(places.ruled),
    'tracked connections': places.pids.reduce((sum, pid) => sum + trackedOf(pid), 0),
    sockets: places.pids.reduce((sum, pid) => sum + socketsOf(pid), 0),
  };
}

/** Map types that have as many entries as were put in, by linux/bpf.h: hashes of all sorts, and tries. */
const COUNTED: ReadonlySet<number> = new Set([1, 5, 9, 10, 11, 18]);

function entriesOf(pins: string): number {
  return filesBelow(pins).reduce((sum, file) => sum + entriesIn(file), 0);
}

/** Entries of what is pinned there; 0 of what is no map that has a list. */
function entriesIn(file: string): number {
  if (!/\/maps\//.test(file)) return 0;
  const fd = libbpf().bpf_obj_get(file);
  if (fd < 0) return 0;
  try {
    const { type, keySize } = mapInfo(fd, file);
    if (!COUNTED.has(type)) return 0;
    const map = BpfMap.openPinned(file, { key: keySize });
    const { length } = map.keys();
    map.close();
    return length;
  } catch {
    return 0; // It went while we looked.
  } finally {
    sys.close(fd);
  }
}

async function ruleLines(namespaces: readonly string[]): Promise<number> {
  const listed = await Promise.all(
    namespaces.map((name) => runCommand(['nsenter', `--net=/run/netns/${name}`, 'nft', 'list', 'ruleset'])),
  );
  return listed.reduce((sum, { stdout }) => sum + stdout.split('\n').length, 0);
}

/** The first column of the table is the number of entries (hexadecimal), the same in each line. */
function trackedOf(pid: number): number {
  const [, line = ''] = read(`/proc/${pid}/net/stat/nf_conntrack`).split('\n');
  return Number.parseInt(line.split(/\s+/)[0] ?? '', 16) || 0;
}

/** TCP sockets that are open, without those in TIME_WAIT: how many of these there are is up to the load. */
function socketsOf(pid: number): number {
  const files = ['sockstat', 'sockstat6'].map((file) => read(`/proc/${pid}/net/${file}`));
  return files.reduce((sum, text) => sum + Number(/TCP6?: inuse (\d+)/.exec(text)?.[1] ?? 0), 0);
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function foldersBelow(folder: string): number {
  return entries(folder).reduce((sum, name) => {
    const path = join(folder, name);
    return isFolder(path) ? sum + 1 + foldersBelow(path) : sum;
  }, 0);
}

function filesBelow(folder: string): readonly string[] {
  return entries(folder).flatMap((name) => {
    const path = join(folder, name);
    return isFolder(path) ? filesBelow(path) : [path];
  });
}

function entries(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
