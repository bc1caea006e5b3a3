import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
  statfsSync,
  statSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { hasCode } from '#ztunnel/capture/native.ts';
import { BpfError, BpfUnsupportedError } from './errors.ts';
import { ABI, MAPS, type MapName } from './layout.ts';
import { BpfMap } from './maps.ts';
import type { SpliceMapName } from './splice-layout.ts';
import { tryLock } from './system-calls.ts';

/**
 * Where a mesh's maps and links are pinned on bpffs: `DIRECTORY/v1/maps/NAME`, `…/links/NAME`, `…/pods/COOKIE/NAME`, by the
 * version of layout.h. The directory is the one thing that node agents share, so it is their lock, too.
 */

/** Where bpffs usually is mounted. */
export const BPFFS = '/sys/fs/bpf';
const BPFFS_MAGIC = 0xcafe4a11;

/** Whether the path is there and on bpffs. */
export function isBpffs(path: string): boolean {
  try {
    return statfsSync(path).type === BPFFS_MAGIC;
  } catch {
    return false;
  }
}

/** Makes a mesh's directory. @throws BpfUnsupportedError when it is not on bpffs or cannot be made; BpfError when it is a stranger's */
export function makeDirectory(directory: string): void {
  let existing = directory;
  while (statSync(existing, { throwIfNoEntry: false }) === undefined && existing !== dirname(existing))
    existing = dirname(existing);
  if (!isBpffs(existing))
    throw new BpfUnsupportedError(
      `${directory} is not on bpffs: mount -t bpf bpf ${BPFFS}, or name a directory below it`,
      { feature: 'bpffs' },
    );
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    accessSync(directory, constants.W_OK);
  } catch (error) {
    throw new BpfUnsupportedError(
      `${directory} cannot be made or written to: root, and write access to bpffs, are needed`,
      {
        feature: 'bpffs',
        cause: error,
      },
    );
  }
  refuseStrangers(directory);
}

/** bpffs lets everybody make directories: nobody else may change what is in ours, nor put another one in its place. */
function refuseStrangers(directory: string): void {
  for (let path = directory; isBpffs(dirname(path)); path = dirname(path)) {
    const stat = lstatSync(path);
    const { uid, mode } = stat;
    if (stat.isDirectory() && (uid === 0 || uid === process.geteuid?.()) && (mode & 0o022) === 0) continue;
    throw new BpfError(
      `${path} ${stat.isDirectory() ? '' : 'is no directory, and '}belongs to user ${uid} with mode ${(mode & 0o777).toString(8)}: others could change the mesh's hooks there; remove it`,
      { code: 'EPERM' },
    );
  }
}

/** How long another agent may hold the lock. What is done under it takes milliseconds, and ends with its process. */
const LOCK_TIMEOUT_MS = 30_000;
const LOCK_RETRY_MS = 3;

/**
 * Does something while no other agent does: one at a time holds the directory's lock. It must be synchronous.
 * @param prepare makes the directory; called again if somebody removes it before it is locked
 * @throws BpfError EBUSY when another process holds the lock for long, ENOENT when the directory is not there
 */
export function withLock<T>(directory: string, work: () => T, prepare: () => void = () => undefined): T {
  const fd = lock(directory, prepare);
  try {
    return work();
  } finally {
    closeSync(fd);
  }
}

function lock(directory: string, prepare: () => void): number {
  const deadline = performance.now() + LOCK_TIMEOUT_MS;
  const waiting = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    prepare();
    const fd = openDirectory(directory);
    if (tryLock(fd)) {
      // Whoever had the lock before may have removed the directory.
      const now = statSync(directory, { throwIfNoEntry: false });
      if (now?.ino === fstatSync(fd).ino) return fd;
    }
    closeSync(fd);
    if (performance.now() > deadline)
      throw new BpfError(
        `${directory} is locked by another process for more than ${LOCK_TIMEOUT_MS} ms: see who has it open (fuser ${directory})`,
        { code: 'EBUSY' },
      );
    Atomics.wait(waiting, 0, 0, LOCK_RETRY_MS);
  }
}

function openDirectory(directory: string): number {
  try {
    return openSync(directory, 'r');
  } catch (error) {
    const code = hasCode(error, 'ENOENT') ? 'ENOENT' : 'EACCES';
    throw new BpfError(`${directory} cannot be opened: the mesh may have been taken down`, {
      code,
      cause: error,
    });
  }
}

/** The directory of one version. */
export function versionDirectory(directory: string, abi: number = ABI): string {
  return join(directory, `v${abi}`);
}

/** Versions of the layout that are pinned there, oldest first. */
export function pinnedVersions(directory: string): number[] {
  return namesIn(directory)
    .flatMap((name) => /^v(\d{1,9})$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

export function mapPath(directory: string, name: MapName | SpliceMapName, abi: number = ABI): string {
  return join(versionDirectory(directory, abi), 'maps', name);
}

export function linkPath(directory: string, name: string): string {
  return join(versionDirectory(directory), 'links', name);
}

/** The directory of one pod's pins. */
export function podDirectory(directory: string, cookie: bigint, abi: number = ABI): string {
  return join(versionDirectory(directory, abi), 'pods', String(cookie));
}

/** Cookies of the pods that have pins, or had begun to. */
export function pinnedPods(directory: string, abi: number = ABI): bigint[] {
  return namesIn(join(versionDirectory(directory, abi), 'pods'))
    .filter((name) => /^\d{1,20}$/.test(name))
    .map(BigInt);
}

/** The names in a directory; none when it is not there. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return [];
    throw error;
  }
}

/** Removes one version. */
export function removeVersion(directory: string, abi: number): void {
  forgetPods(directory, abi);
  const version = versionDirectory(directory, abi);
  // The hooks of the cgroup first: no connection is sent to a pod whose other hooks are gone.
  for (const part of ['links', 'pods', 'maps']) removeTree(join(version, part));
  removeTree(version);
}

/**
 * Without its entry, every program leaves a pod alone: also the filter of a pod without tcx, that no pin holds. Which
 * layout this version's `pods` had matters not, as long as the pod's cookie is its key.
 */
function forgetPods(directory: string, abi: number): void {
  let pods: BpfMap;
  try {
    pods = BpfMap.openPinned(mapPath(directory, 'pods', abi), { key: MAPS.pods.key });
  } catch {
    return; // never made, or something else: it goes with the rest
  }
  try {
    for (const key of pods.keys()) pods.delete(key);
  } finally {
    pods.close();
  }
}

/** Removes pins and directories; not there is no error. */
export function removeTree(path: string): void {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat?.isDirectory() !== true) {
    rmSync(path, { force: true });
    return;
  }
  for (const name of namesIn(path)) removeTree(join(path, name));
  rmdirSync(path);
}

/** Removes a directory that other meshes may be using. */
export function removeEmpty(path: string): void {
  if (path === BPFFS) return;
  try {
    rmdirSync(path);
  } catch (error) {
    if (!['ENOTEMPTY', 'ENOENT', 'EBUSY'].some((code) => hasCode(error, code))) throw error;
  }
}
