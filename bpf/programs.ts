import { mkdirSync, rmdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { namespaceCookie } from '#ztunnel/capture/native.ts';
import { BpfError } from './errors.ts';
import {
  attempt,
  type EgressMethod,
  type OpenCgroup,
  openCgroup,
  requireBpf,
  requireDescriptors,
  tryInNamespace,
} from './features.ts';
import { ABI } from './layout.ts';
import { readObject } from './objects.ts';
import {
  BPFFS,
  isBpffs,
  makeDirectory,
  pinnedPods,
  pinnedVersions,
  podDirectory,
  removeEmpty,
  removeTree,
  removeVersion,
  withLock,
} from './pins.ts';
import {
  attachPodHooks,
  detachPodHooks,
  forgetPod,
  isAbandoned,
  isAttached,
  type LoadedPodPrograms,
  loadPodPrograms,
  type PodPlace,
} from './pod-hooks.ts';
import {
  areAttached,
  arePinned,
  attachShared,
  loadShared,
  loadWithMaps,
  type MeshMaps,
  makeVersion,
  openMaps,
  refuseNewer,
  sweepOlder,
} from './shared-programs.ts';
import { installSplice, type SpliceSupport } from './splice.ts';
import { mountPseudo } from './system-calls.ts';

/**
 * A mesh's programs in the kernel: loaded, attached and pinned, so that they go on when the node agent ends, and a new one
 * finds them. Several agents of one mesh may do all of this at the same time.
 */

export interface MeshOptions {
  /** `/sys/fs/bpf/tulle/MESH`. */
  readonly directory: string;
  /** The mesh's own cgroup, above all of its pods and all of its ztunnels; made where it is not there. */
  readonly cgroup: string;
  /** For tests: as if this kernel had only that one. */
  readonly egress?: EgressMethod;
}

/** A pod to be attached; descriptors stay the caller's. */
export interface AttachedPod extends PodPlace {
  /** Of its network namespace. */
  readonly cookie: bigint;
}

export interface MeshPrograms {
  readonly maps: MeshMaps;
  /** How the egress program is attached here. */
  readonly egress: EgressMethod;
  /** Whether connections between two pods can go past the ztunnel. */
  readonly splice: SpliceSupport;
  /**
   * Attaches a pod's own programs; one that is attached already gets these programs in place of those it has. They do
   * nothing until the pod has its entry in the map `pods`.
   * @throws BpfError
   */
  readonly attachPod: (pod: AttachedPod) => void;
  /**
   * Forgets the pod in all maps and takes its programs away; not attached is no error.
   * @param place needed without tcx only: where it is not given, a filter that does nothing stays at the pod's device
   */
  readonly detachPod: (cookie: bigint, place?: PodPlace) => void;
  /** Whether what pods share is pinned still, and holds. It does not once somebody has removed pins, or the cgroup. */
  readonly isWhole: () => boolean;
  /** Whether both of a pod's own programs are pinned. */
  readonly isAttached: (cookie: bigint) => boolean;
  /** Cookies of the pods that are attached, whichever agent did it. */
  readonly attachedPods: () => bigint[];
  /**
   * Forgets pods whose namespace is gone; and what an older version of the layout still has, once its pods are gone or have
   * their entry in this one.
   */
  readonly sweep: () => void;
  /** Closes our descriptors; everything stays attached. */
  readonly close: () => void;
}

/**
 * Loads the programs and attaches those of the cgroup, or has the links that are there run them from now on.
 * @throws BpfUnsupportedError when this machine lacks something, found by trying; BpfError when what is pinned there is not
 * ours, or of a newer version
 */
export function installMesh(options: MeshOptions): MeshPrograms {
  requireDescriptors();
  requireBpf();
  const cgroup = openCgroup(options.cgroup);
  try {
    return withLock(
      options.directory,
      () => installLocked(options, cgroup),
      () => makeDirectory(options.directory),
    );
  } finally {
    cgroup.close();
  }
}

function installLocked(options: MeshOptions, cgroup: OpenCgroup): MeshPrograms {
  const { directory } = options;
  refuseNewer(directory);
  const isNew = makeVersion(directory);
  try {
    const podFile = readObject('pod');
    const shared = loadShared(directory);
    try {
      const egress = tryInNamespace((netnsFd) => tryPod(directory, podFile, netnsFd), options.egress);
      attachShared(directory, shared, cgroup);
      const splice = installSplice(directory, cgroup);
      const maps = openMaps(directory);
      sweepOlder(directory, maps.pods);
      const links = [...shared.programs.keys()];
      return meshPrograms(directory, maps, podFile, { egress, splice, links });
    } finally {
      shared.close();
    }
  } catch (error) {
    if (isNew) removeVersion(directory, ABI);
    removeEmpty(directory);
    removeEmpty(dirname(directory));
    throw error;
  }
}

function tryPod(directory: string, file: Buffer, netnsFd: number): LoadedPodPrograms {
  const cookie = attempt('netns_cookie', 'network namespaces have no cookies (Linux 5.14 has)', () =>
    namespaceCookie(netnsFd),
  );
  return loadWithMaps(directory, (maps) => loadPodPrograms(file, maps, cookie));
}

function meshPrograms(
  directory: string,
  maps: MeshMaps,
  podFile: Buffer,
  { egress, splice, links }: Pick<MeshPrograms, 'egress' | 'splice'> & { readonly links: readonly string[] },
): MeshPrograms {
  return {
    maps,
    egress,
    splice,
    attachPod: (pod) => {
      requireCookie(pod);
      const programs = loadPodPrograms(podFile, descriptorsOf(maps), pod.cookie);
      try {
        withLock(directory, () => attachPodHooks(podDirectory(directory, pod.cookie), pod, programs, egress));
      } finally {
        programs.close();
      }
    },
    detachPod: (cookie, place) =>
      withLock(directory, () => {
        forgetPod(maps, cookie);
        detachPodHooks(podDirectory(directory, cookie), place);
      }),
    isWhole: () => arePinned(directory, maps) && areAttached(directory, links),
    isAttached: (cookie) => isAttached(podDirectory(directory, cookie)),
    attachedPods: () => pinnedPods(directory),
    sweep: () => withLock(directory, () => sweepLocked(directory, maps)),
    close: () => {
      for (const map of Object.values(maps)) map.close();
    },
  };
}

function descriptorsOf(maps: MeshMaps): ReadonlyMap<string, number> {
  return new Map(Object.entries(maps).map(([name, map]) => [name, map.fd]));
}

/** A cookie and a namespace that do not belong together would have one pod's connections handed to another's ztunnel. */
function requireCookie(pod: AttachedPod): void {
  const actual = namespaceCookie(pod.netnsFd);
  if (actual === pod.cookie) return;
  throw new BpfError(`the namespace has cookie ${actual}, not ${pod.cookie}`, { code: 'EINVAL' });
}

/** One pod's pins that are not as they should be leave no other pod unswept. */
function sweepLocked(directory: string, maps: MeshMaps): void {
  const errors: unknown[] = [];
  for (const cookie of pinnedPods(directory)) {
    const pins = podDirectory(directory, cookie);
    try {
      if (!isAbandoned(pins)) continue;
      forgetPod(maps, cookie);
      removeTree(pins);
    } catch (error) {
      errors.push(error);
    }
  }
  sweepOlder(directory, maps.pods);
  if (errors.length > 0) throw errors[0];
}

/**
 * Removes everything of a mesh, all versions of it, also when it is half made: the hooks vanish, connections that were
 * captured go on. Nothing there is no error.
 * @throws BpfError
 */
export function removePins(directory: string): void {
  if (statSync(directory, { throwIfNoEntry: false }) === undefined) return;
  if (!isBpffs(directory))
    throw new BpfError(`${directory} is not on bpffs: it is not the directory of a mesh`, { code: 'EINVAL' });
  withLock(directory, () => {
    for (const abi of pinnedVersions(directory)) removeVersion(directory, abi);
    removeTree(directory);
  });
  removeEmpty(dirname(directory));
}

/** A directory of root's, while one mounts. */
const MOUNTING = '/run/tulle-mounts-bpffs';

/**
 * Mounts bpffs where it is not mounted yet.
 * @throws BpfUnsupportedError when that is not possible
 */
export function ensureBpffs(path: string = BPFFS): void {
  if (isBpffs(path)) return;
  attempt(
    'bpffs',
    `bpffs is not mounted at ${path} and cannot be (mount -t bpf bpf ${path} before, as root)`,
    // Another agent may be about to do the same; two mounts would hide one's pins from the other. Anybody could lock the
    // directory that is mounted upon, which is everybody's to read.
    () =>
      withLock(
        MOUNTING,
        () => {
          try {
            if (!isBpffs(path)) mountPseudo('bpf', path);
          } finally {
            rmdirSync(MOUNTING);
          }
        },
        () => mkdirSync(MOUNTING, { recursive: true, mode: 0o700 }),
      ),
  );
}
