import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { BpfError } from './errors.ts';
import { explainLoadError, type OpenCgroup } from './features.ts';
import { ABI, MAPS, type MapName, podKey } from './layout.ts';
import { pin, pinLink, pinnedLink } from './links.ts';
import { BpfMap } from './maps.ts';
import { type LoadedObject, loadObject, readObject } from './objects.ts';
import {
  linkPath,
  mapPath,
  pinnedPods,
  pinnedVersions,
  podDirectory,
  removeTree,
  removeVersion,
  versionDirectory,
} from './pins.ts';
import { isAbandoned } from './pod-hooks.ts';

/** What all pods of a mesh share: the maps, and the programs at the mesh's cgroup. To be called with the directory's lock. */

/** The maps of a mesh, by name. */
export type MeshMaps = Readonly<Record<MapName, BpfMap>>;

const MAP_NAMES = Object.keys(MAPS) as readonly MapName[];

/** @throws BpfError when a newer version of the mesh has been here: its layout is not ours to know */
export function refuseNewer(directory: string): void {
  const newest = pinnedVersions(directory).at(-1);
  if (newest === undefined || newest <= ABI) return;
  throw new BpfError(
    `${versionDirectory(directory, newest)} is of a newer version of the mesh (layout ${newest}, ours is ${ABI}): ` +
      'run that version, or take the mesh down with it first',
    { code: 'NEWER_LAYOUT' },
  );
}

/** Makes the directories of our version; false when they were there. */
export function makeVersion(directory: string): boolean {
  const made = ['maps', 'links', 'pods'].map((part) =>
    mkdirSync(join(versionDirectory(directory), part), { recursive: true, mode: 0o700 }),
  );
  return made[0] !== undefined;
}

/**
 * Loads programs with the maps that are pinned, and pins those that they brought.
 * @throws BpfUnsupportedError, BpfError
 */
export function loadWithMaps<T extends Pick<LoadedObject, 'maps' | 'close'>>(
  directory: string,
  load: (maps: ReadonlyMap<string, number>) => T,
): T {
  const pinned = openPinnedMaps(directory);
  try {
    const loaded = explained(() => load(new Map([...pinned].map(([name, map]) => [name, map.fd]))));
    try {
      for (const name of MAP_NAMES) {
        const fd = loaded.maps.get(name);
        if (fd !== undefined && !pinned.has(name)) pin(fd, mapPath(directory, name));
      }
      return loaded;
    } catch (error) {
      loaded.close();
      throw error;
    }
  } finally {
    for (const map of pinned.values()) map.close();
  }
}

function explained<T>(load: () => T): T {
  try {
    return load();
  } catch (error) {
    throw explainLoadError(error);
  }
}

function openPinnedMaps(directory: string): ReadonlyMap<MapName, BpfMap> {
  const maps = new Map<MapName, BpfMap>();
  try {
    for (const name of MAP_NAMES) {
      const map = findMap(mapPath(directory, name), MAPS[name]);
      if (map !== undefined) maps.set(name, map);
    }
    return maps;
  } catch (error) {
    for (const map of maps.values()) map.close();
    throw error;
  }
}

/** All maps of a mesh. @throws BpfError when one is missing */
export function openMaps(directory: string): MeshMaps {
  const maps = openPinnedMaps(directory);
  const missing = MAP_NAMES.filter((name) => !maps.has(name));
  if (missing.length === 0) return Object.fromEntries(maps) as MeshMaps;
  for (const map of maps.values()) map.close();
  throw new BpfError(
    `no program brings the maps ${missing.join(', ')}: the objects in bpf/objects are not ours`,
    {
      code: 'EINVAL',
    },
  );
}

/** Whether it is these maps that are pinned. */
export function arePinned(directory: string, maps: MeshMaps): boolean {
  const pinned = openPinnedMaps(directory);
  const areSame = MAP_NAMES.every((name) => pinned.get(name)?.id === maps[name].id);
  for (const map of pinned.values()) map.close();
  return areSame;
}

/** Whether links of those names are pinned, and their cgroup is there. */
export function areAttached(directory: string, names: readonly string[]): boolean {
  return names.every((name) => (pinnedLink(linkPath(directory, name))?.identity ?? 0n) !== 0n);
}

/** Loads the programs of the cgroup. */
export function loadShared(directory: string): LoadedObject {
  return loadWithMaps(directory, (maps) => loadObject('cgroup', readObject('cgroup'), { maps }));
}

/** Attaches them, or has the links that are there run them from now on. Links of programs that we do not know are left alone. */
export function attachShared(directory: string, object: LoadedObject, cgroup: OpenCgroup): void {
  for (const { name, fd, attachType } of object.programs.values())
    pinLink(
      linkPath(directory, name),
      { kind: 'cgroup', attachType, target: cgroup.fd, identity: cgroup.id },
      fd,
    );
}

/**
 * Takes over from older versions of the layout, pod by pod: until a pod has its entry with us, the old programs capture it
 * as before; both can be attached at once. That asks of every version that its pins have these names, and that the map
 * `pods` has the pod's cookie as its key.
 */
export function sweepOlder(directory: string, pods: BpfMap): void {
  for (const abi of pinnedVersions(directory).filter((version) => version < ABI)) {
    const oldPods = findMap(mapPath(directory, 'pods', abi), { key: MAPS.pods.key });
    for (const cookie of pinnedPods(directory, abi)) {
      const pins = podDirectory(directory, cookie, abi);
      if (!isAbandoned(pins) && !pods.lookup(podKey(cookie), Buffer.alloc(MAPS.pods.value))) continue;
      oldPods?.delete(podKey(cookie));
      removeTree(pins);
    }
    oldPods?.close();
    if (pinnedPods(directory, abi).length === 0) removeVersion(directory, abi);
  }
}

/** A pinned map; undefined when it is not there. @throws BpfError when it is another kind of map */
export function findMap(path: string, layout: Parameters<typeof BpfMap.openPinned>[1]): BpfMap | undefined {
  try {
    return BpfMap.openPinned(path, layout);
  } catch (error) {
    if (error instanceof BpfError && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
