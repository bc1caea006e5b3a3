import { BpfError, BpfUnsupportedError, bpfError } from './errors.ts';
import type { OpenCgroup } from './features.ts';
import { MAPS } from './layout.ts';
import { libbpf } from './libbpf.ts';
import { pin, pinLink } from './links.ts';
import type { BpfMap } from './maps.ts';
import { type LoadedObject, type LoadedProgram, loadObject, readObject } from './objects.ts';
import { linkPath, mapPath, removeTree } from './pins.ts';
import { findMap } from './shared-programs.ts';
import { SPLICE_MAPS, type SpliceMapName } from './splice-layout.ts';

/**
 * The kernel splice's programs beside those of the mesh: pinned in the same directory, removed with it. They do nothing until
 * a ztunnel says that a pod has asked for it.
 */

/** Whether this machine has it; found by trying. */
export type SpliceSupport =
  | { readonly kind: 'installed' }
  /** For people: what is missing. Connections stay in the ztunnel. */
  | { readonly kind: 'unsupported'; readonly reason: string };

const PROGRAM = 'splice_message';
const LINK = 'splice_socket';
/** enum bpf_attach_type of linux/bpf.h. */
const BPF_SK_MSG_VERDICT = 7;
const NAMES = Object.keys(SPLICE_MAPS) as readonly SpliceMapName[];

/**
 * Loads and attaches them, or has what is there run them from now on. To be called with the directory's lock, when the maps of the
 * mesh are there. Half of it is nothing: what was pinned is taken away again.
 */
export function installSplice(directory: string, cgroup: OpenCgroup): SpliceSupport {
  try {
    attachSplice(directory, cgroup);
    return { kind: 'installed' };
  } catch (error) {
    if (!(error instanceof BpfError || error instanceof BpfUnsupportedError)) throw error;
    removeTree(linkPath(directory, LINK));
    for (const name of NAMES) removeTree(mapPath(directory, name));
    return { kind: 'unsupported', reason: error.message };
  }
}

function attachSplice(directory: string, cgroup: OpenCgroup): void {
  const pinned = openPinned(directory);
  try {
    const maps = new Map([...pinned].map(([name, map]) => [name, map.fd]));
    const object = loadObject('splice', readObject('splice'), { maps });
    try {
      for (const name of NAMES) if (!pinned.has(name)) pin(mapOf(object, name), mapPath(directory, name));
      attachToSenders(object);
      const { fd, attachType } = programOf(object, LINK);
      const hook = { kind: 'cgroup', attachType, target: cgroup.fd, identity: cgroup.id } as const;
      pinLink(linkPath(directory, LINK), hook, fd);
    } finally {
      object.close();
    }
  } finally {
    for (const map of pinned.values()) map.close();
  }
}

/** A program of messages belongs to a map of sockets, and goes with it. Another that is there gives way. */
function attachToSenders(object: LoadedObject): void {
  const senders = mapOf(object, 'splice_senders');
  const { fd } = programOf(object, PROGRAM);
  const result = libbpf().bpf_prog_attach(fd, senders, BPF_SK_MSG_VERDICT, 0);
  if (result < 0) throw bpfError(`attach ${PROGRAM} to its map`, -result);
}

/** Those of the mesh that the programs use, and their own, as far as they are there. */
function openPinned(directory: string): ReadonlyMap<string, BpfMap> {
  const layouts = { own: MAPS.own, pods: MAPS.pods, listeners: MAPS.listeners, counters: MAPS.counters };
  const maps = new Map<string, BpfMap>();
  try {
    for (const [name, layout] of Object.entries({ ...layouts, ...SPLICE_MAPS })) {
      const map = findMap(mapPath(directory, name as SpliceMapName), layout);
      if (map !== undefined) maps.set(name, map);
    }
    return maps;
  } catch (error) {
    for (const map of maps.values()) map.close();
    throw error;
  }
}

function mapOf(object: LoadedObject, name: string): number {
  const fd = object.maps.get(name);
  if (fd === undefined) throw missing(`map ${name}`);
  return fd;
}

function programOf(object: LoadedObject, name: string): LoadedProgram {
  const program = object.programs.get(name);
  if (program === undefined) throw missing(`program ${name}`);
  return program;
}

function missing(what: string): BpfError {
  return new BpfError(`splice.bpf.o has no ${what}: it is not of this version`, { code: 'EINVAL' });
}
