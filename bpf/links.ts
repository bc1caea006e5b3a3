import { renameSync, rmSync } from 'node:fs';
import { sys } from '#ztunnel/capture/native.ts';
import { BpfError, BpfUnsupportedError, bpfError, describeErrno } from './errors.ts';
import { libbpf } from './libbpf.ts';
import { kindOfDescriptor, objectInfo, refuseDirectory } from './maps.ts';

/**
 * A link holds a program at its hook; pinned on bpffs, it outlives whoever made it. Changing a link's program is one step
 * in the kernel: no connection or packet finds the hook empty.
 */

/** enum bpf_attach_type of linux/bpf.h. */
export const BPF_SK_LOOKUP: 36 = 36;
export const BPF_TCX_EGRESS: 47 = 47;

/** enum bpf_link_type of linux/bpf.h. */
const LINK_TYPES: ReadonlyMap<number, 'cgroup' | 'netns' | 'tcx'> = new Map([
  [3, 'cgroup'],
  [5, 'netns'],
  [11, 'tcx'],
]);

/** Where a link's program is to be called. */
export interface Hook {
  readonly kind: 'cgroup' | 'netns' | 'tcx';
  readonly attachType: number;
  /** What bpf(2) takes for it: a descriptor of a cgroup or namespace, a device's index. */
  readonly target: number;
  /** What the kernel then says it is: the cgroup's id, the namespace's inode, the device's index. */
  readonly identity: bigint;
}

/** What the kernel says of a link (struct bpf_link_info). */
export interface LinkInfo {
  readonly kind: Hook['kind'] | undefined;
  readonly programId: number;
  readonly attachType: number;
  /** As in {@link Hook}; 0 when the cgroup, namespace or device is gone. */
  readonly identity: bigint;
}

/**
 * Makes the pinned link of a hook have this program: a link that is there is changed in place, one whose target is gone, or
 * another than asked for, is replaced by a new one. Whatever else has that name is an error.
 * @throws BpfError
 */
export function pinLink(path: string, hook: Hook, program: number): void {
  // Of one who died between pinning and renaming: a second link at the same hook.
  removeTemporary(temporaryName(path));
  const old = openPinned(path);
  try {
    if (old !== undefined && updateLink(path, old, hook, program)) return;
    const link = createLink(path, hook, program);
    try {
      if (old === undefined) pin(link, path);
      else replacePin(link, path);
    } finally {
      sys.close(link);
    }
  } finally {
    if (old !== undefined) sys.close(old);
  }
}

/** What is pinned there; undefined when nothing is. @throws BpfError, also when it is no link */
export function pinnedLink(path: string): LinkInfo | undefined {
  const fd = openPinned(path);
  if (fd === undefined) return undefined;
  try {
    return linkInfo(path, fd);
  } finally {
    sys.close(fd);
  }
}

/**
 * Pins an object of bpf(2).
 * @throws BpfUnsupportedError when nobody may; BpfError EEXIST when the name is taken
 */
export function pin(fd: number, path: string): void {
  const result = libbpf().bpf_obj_pin(fd, path);
  if (result >= 0) return;
  if (result === -EPERM || result === -EACCES)
    throw new BpfUnsupportedError(
      `pin ${kindOfDescriptor(fd) ?? 'object'} ${path}: ${describeErrno(-result)} (bpffs has to be mounted there, and no security module may forbid pins: see dmesg)`,
      { feature: 'bpffs' },
    );
  throw bpfError(`pin ${path}`, -result);
}

/** Pins it in place of what is there, in one step. @throws BpfError */
export function replacePin(fd: number, path: string): void {
  const temporary = temporaryName(path);
  removeTemporary(temporary);
  pin(fd, temporary);
  renameSync(temporary, path);
}

function removeTemporary(path: string): void {
  refuseDirectory(path);
  rmSync(path, { force: true });
}

function temporaryName(path: string): string {
  return `${path}-new`;
}

/**
 * Attaches a program to a hook.
 * @returns the link's descriptor, the caller's to close; unless it is pinned, that detaches the program
 * @throws BpfError
 */
export function createLink(name: string, hook: Hook, program: number): number {
  const link = libbpf().bpf_link_create(program, hook.target, hook.attachType, null);
  if (link < 0)
    throw bpfError(`attach ${name} (${hook.kind} hook ${hook.attachType})`, -link, remedyOf(-link));
  return link;
}

/** False: its target is gone or another one. */
function updateLink(path: string, link: number, hook: Hook, program: number): boolean {
  const info = linkInfo(path, link);
  if (info.kind !== hook.kind || info.attachType !== hook.attachType)
    throw new BpfError(
      `${path} is a link of another kind (${info.kind ?? 'unknown'} hook ${info.attachType}, not ${hook.kind} hook ` +
        `${hook.attachType}): something else than the mesh pinned it; remove it`,
      { code: 'EINVAL' },
    );
  if (info.identity !== hook.identity) return false;
  const result = libbpf().bpf_link_update(link, program, null);
  if (result === -ENOLINK) return false;
  if (result < 0) throw bpfError(`change the program of link ${path}`, -result, remedyOf(-result));
  return true;
}

const ENOENT = 2;
const EPERM = 1;
const EACCES = 13;
const ENOLINK = 67;

function openPinned(path: string): number | undefined {
  const fd = libbpf().bpf_obj_get(path);
  if (fd >= 0) return fd;
  if (fd === -ENOENT) return undefined;
  refuseDirectory(path);
  throw bpfError(`open link ${path}`, -fd, 'what is there is no object of bpf(2), or is not ours to open');
}

function linkInfo(path: string, fd: number): LinkInfo {
  if (kindOfDescriptor(fd) !== 'link')
    throw new BpfError(`${path} is no link: something else than the mesh pinned it; remove it`, {
      code: 'EINVAL',
    });
  // struct bpf_link_info: type, id, prog_id, then from 16 on what depends on the type.
  const info = objectInfo(fd, `link ${path}`, 64);
  const kind = LINK_TYPES.get(info.readUInt32LE(0));
  return {
    kind,
    programId: info.readUInt32LE(8),
    attachType: info.readUInt32LE(kind === 'cgroup' ? 24 : 20),
    identity: kind === 'cgroup' ? info.readBigUInt64LE(16) : BigInt(info.readUInt32LE(16)),
  };
}

function remedyOf(errno: number): string {
  if (errno !== EPERM) return '';
  return 'CAP_BPF, CAP_NET_ADMIN and for namespaces CAP_SYS_ADMIN are needed, and no other program may be attached exclusively to a parent cgroup';
}
