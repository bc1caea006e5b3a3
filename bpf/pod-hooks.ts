import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { sys, withinNamespace } from '#ztunnel/capture/native.ts';
import { attachFilter, detachFilter } from './clsact.ts';
import { BpfError } from './errors.ts';
import { type EgressMethod, egressHook, lookupHook, type PodPrograms } from './features.ts';
import { podKey } from './layout.ts';
import { libbpf } from './libbpf.ts';
import { createLink, pinLink, pinnedLink, replacePin } from './links.ts';
import { type BpfMap, kindOfDescriptor } from './maps.ts';
import { type LoadedObject, loadObject } from './objects.ts';
import { removeTree } from './pins.ts';
import { deviceIndex } from './system-calls.ts';

/** A pod's own two hooks: what its sockets are looked up by, and what leaves by its device. */

/** A pod's network namespace, and the device by which it reaches others. */
export interface PodPlace {
  readonly netnsFd: number;
  readonly device: string;
}

export interface LoadedPodPrograms extends PodPrograms, Pick<LoadedObject, 'maps' | 'close'> {}

/** A pod's programs, loaded for it alone: where sockets are looked up, nothing but its constant tells which pod it is. */
export function loadPodPrograms(
  file: Buffer,
  maps: ReadonlyMap<string, number>,
  cookie: bigint,
): LoadedPodPrograms {
  const object = loadObject('pod', file, { maps, constants: podKey(cookie) });
  const fdOf = (name: string): number => {
    const program = object.programs.get(name);
    if (program !== undefined) return program.fd;
    object.close();
    throw new BpfError(`pod.bpf.o has no program ${name}: build it again`, { code: 'EINVAL' });
  };
  return { lookup: fdOf('steer'), egress: fdOf('leave'), maps: object.maps, close: object.close };
}

/**
 * Attaches a pod's programs and pins them in its directory, or has what is attached there run them from now on.
 * @throws BpfError; nothing stays then that was not there before
 */
export function attachPodHooks(
  directory: string,
  place: PodPlace,
  programs: PodPrograms,
  method: EgressMethod,
): void {
  const isNew = mkdirSync(directory, { recursive: true, mode: 0o700 }) !== undefined;
  try {
    pinLink(join(directory, LOOKUP), lookupHook(place.netnsFd), programs.lookup);
    const index = deviceIndex(place.netnsFd, place.device);
    withinNamespace(place.netnsFd, () =>
      attachEgress(join(directory, EGRESS), index, programs.egress, method),
    );
  } catch (error) {
    if (isNew) removePodPins(directory);
    throw error;
  }
}

const LOOKUP = 'lookup';
const EGRESS = 'egress';

/** A filter has nothing that could be pinned: its program is, to say that there is one. */
function attachEgress(path: string, index: number, program: number, method: EgressMethod): void {
  if (method === 'clsact') {
    attachFilter(index, program);
    replacePin(program, path);
  } else if (hasFilter(path)) {
    const link = createLink(path, egressHook(index), program);
    replacePin(link, path);
    sys.close(link);
    detachFilter(index);
  } else pinLink(path, egressHook(index), program);
}

function hasFilter(path: string): boolean {
  const fd = libbpf().bpf_obj_get(path);
  if (fd < 0) return false;
  const kind = kindOfDescriptor(fd);
  sys.close(fd);
  return kind === 'prog';
}

/**
 * Takes a pod's hooks away; not there is no error.
 * @param place undefined: the namespace is gone, or not known; a filter that is no link stays in it then, and does nothing
 */
export function detachPodHooks(directory: string, place: PodPlace | undefined): void {
  const path = join(directory, EGRESS);
  if (place !== undefined && hasFilter(path)) {
    const index = deviceIndex(place.netnsFd, place.device);
    withinNamespace(place.netnsFd, () => detachFilter(index));
  }
  removePodPins(directory);
}

function removePodPins(directory: string): void {
  rmSync(join(directory, EGRESS), { force: true });
  removeTree(directory);
}

/** Whether both hooks are pinned. */
export function isAttached(directory: string): boolean {
  return [LOOKUP, EGRESS].every((name) => existsSync(join(directory, name)));
}

/** Whether the pod of these pins is gone, or was never wholly attached. @throws BpfError for pins that are not ours */
export function isAbandoned(directory: string): boolean {
  const link = pinnedLink(join(directory, LOOKUP));
  return link === undefined || link.identity === 0n;
}

/** Forgets a pod in the maps; the entry that all programs go by first. */
export function forgetPod(
  maps: Readonly<Record<'pods' | 'counters' | 'probes', BpfMap>>,
  cookie: bigint,
): void {
  const key = podKey(cookie);
  maps.pods.delete(key);
  maps.counters.delete(key);
  for (const probe of maps.probes.keys())
    if (key.equals(probe.subarray(0, key.length))) maps.probes.delete(probe);
}
