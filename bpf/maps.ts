import { readlinkSync, statSync } from 'node:fs';
import { sys } from '#ztunnel/capture/native.ts';
import { BpfError, bpfError, errnoName } from './errors.ts';
import { libbpf } from './libbpf.ts';

const ENOENT = 2;

/** Update whatever is there, only what is not there yet, only what is there (BPF_ANY, BPF_NOEXIST, BPF_EXIST). */
export type UpdateFlags = 0 | 1 | 2;

/** What a map is, as the kernel says (struct bpf_map_info); sizes in bytes. */
export interface MapInfo {
  readonly type: number;
  readonly id: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
}

/** What a map has to be: bytes of its keys and values, its type and flags by linux/bpf.h; what is not named may be anything. */
export interface MapSizes {
  readonly key: number;
  readonly value?: number;
  readonly type?: number;
  readonly flags?: number;
}

/** A map shared with the programs in the kernel. Its descriptor is closed by {@link close}; the map lives on while pinned or used. */
export class BpfMap {
  /** By which the kernel tells maps apart. */
  readonly id: number;
  readonly #fd: number;
  readonly #path: string;
  readonly #keySize: number;
  readonly #valueSize: number;
  readonly #maxEntries: number;
  #isOpen = true;

  private constructor(fd: number, path: string, info: MapInfo) {
    this.id = info.id;
    this.#fd = fd;
    this.#path = path;
    this.#keySize = info.keySize;
    this.#valueSize = info.valueSize;
    this.#maxEntries = info.maxEntries;
  }

  /**
   * Opens a map that is pinned on bpffs.
   * @throws BpfError ENOENT when nothing is there; EINVAL when it is no map, or one with other sizes than ours;
   * BpfUnsupportedError without libbpf
   */
  static openPinned(path: string, sizes: MapSizes): BpfMap {
    const fd = libbpf().bpf_obj_get(path);
    if (fd < 0) {
      refuseDirectory(path);
      throw bpfError(`open map ${path}`, -fd, openRemedy(-fd));
    }
    try {
      const info = mapInfo(fd, path);
      refuseOther(
        path,
        { key: info.keySize, value: info.valueSize, type: info.type, flags: info.flags },
        sizes,
      );
      return new BpfMap(fd, path, info);
    } catch (error) {
      sys.close(fd);
      throw error;
    }
  }

  /** @throws BpfError once it is closed: the number may be another's by then */
  get fd(): number {
    this.#require(undefined, undefined);
    return this.#fd;
  }

  /**
   * Copies the value of a key; for maps of sockets' storage, the key is a descriptor. False: there is none.
   * @throws BpfError; RangeError for bytes that are too few, here and below: the kernel takes as many as the map has
   */
  lookup(key: Uint8Array, into: Uint8Array): boolean {
    this.#require(key, into);
    const result = libbpf().bpf_map_lookup_elem(this.#fd, key, into);
    return this.#unlessMissing('look up in', result);
  }

  /** @throws BpfError E2BIG when the map is full, EEXIST and ENOENT by `flags` */
  update(key: Uint8Array, value: Uint8Array, flags: UpdateFlags = 0): void {
    this.#require(key, value);
    const result = libbpf().bpf_map_update_elem(this.#fd, key, value, flags);
    if (result < 0) throw this.#failed('write to', -result);
  }

  /** False: it was not there. @throws BpfError */
  delete(key: Uint8Array): boolean {
    this.#require(key, undefined);
    return this.#unlessMissing('delete from', libbpf().bpf_map_delete_elem(this.#fd, key));
  }

  /**
   * All keys at this moment; what others add or delete meanwhile may be there or not. Never more than the map can have.
   * @throws BpfError, also for storage of sockets, which has no list
   */
  keys(): Buffer[] {
    this.#require(undefined, undefined);
    const keys = new Map<string, Buffer>();
    let last: Buffer | null = null;
    // Deleting the key that we stand at makes the kernel start again: hence the bound, and the map by text.
    for (let step = 0; step < 2 * this.#maxEntries; step++) {
      const next: Buffer = Buffer.alloc(this.#keySize);
      if (!this.#unlessMissing('list', libbpf().bpf_map_get_next_key(this.#fd, last, next))) break;
      keys.set(next.toString('latin1'), next);
      last = next;
    }
    return [...keys.values()];
  }

  close(): void {
    if (this.#isOpen) sys.close(this.#fd);
    this.#isOpen = false;
  }

  #require(key: Uint8Array | undefined, value: Uint8Array | undefined): void {
    if (!this.#isOpen) throw new BpfError(`map ${this.#path} is closed`, { code: 'EBADF' });
    if (key !== undefined && key.length < this.#keySize)
      throw new RangeError(`a key of ${this.#path} has ${this.#keySize} bytes, not ${key.length}`);
    if (value !== undefined && value.length < this.#valueSize)
      throw new RangeError(`a value of ${this.#path} has ${this.#valueSize} bytes, not ${value.length}`);
  }

  #unlessMissing(action: string, result: number): boolean {
    if (result >= 0) return true;
    if (result === -ENOENT) return false;
    throw this.#failed(action, -result);
  }

  #failed(action: string, errno: number): BpfError {
    return bpfError(`${action} map ${this.#path}`, errno, this.#remedy(errnoName(errno)));
  }

  #remedy(code: string): string {
    if (code === 'E2BIG' || code === 'ENOSPC')
      return `it is full with its ${this.#maxEntries} entries: run fewer pods on this machine`;
    if (code === 'ENOMEM') return 'the kernel has no memory for one more entry';
    if (code === 'EPERM' || code === 'EACCES') return 'CAP_BPF and CAP_NET_ADMIN are needed';
    return '';
  }
}

/** @throws BpfError EINVAL when the descriptor is not one of a map */
export function mapInfo(fd: number, path: string): MapInfo {
  if (kindOfDescriptor(fd) !== 'map')
    throw new BpfError(`${path} is no map: something else than the mesh made it; remove it`, {
      code: 'EINVAL',
    });
  // struct bpf_map_info begins: type, id, key_size, value_size, max_entries, map_flags.
  const info = objectInfo(fd, `map ${path}`, 88);
  return {
    type: info.readUInt32LE(0),
    id: info.readUInt32LE(4),
    keySize: info.readUInt32LE(8),
    valueSize: info.readUInt32LE(12),
    maxEntries: info.readUInt32LE(16),
    flags: info.readUInt32LE(20),
  };
}

/** The first bytes of what the kernel says of an object of bpf(2), a structure of its kind's own. @throws BpfError */
export function objectInfo(fd: number, what: string, bytes: number): Buffer {
  const info = Buffer.alloc(bytes);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes);
  const result = libbpf().bpf_obj_get_info_by_fd(fd, info, length);
  if (result < 0) throw bpfError(`ask about ${what}`, -result);
  return info;
}

/** A directory where a pin is to be: the kernel would only say EACCES. @throws BpfError EISDIR */
export function refuseDirectory(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return;
  throw new BpfError(
    `${path} is a directory in the place of a pin: something else than the mesh made it; remove it`,
    { code: 'EISDIR' },
  );
}

/** What a descriptor of bpf(2) stands for: each kind of object has its own name in /proc. */
export function kindOfDescriptor(fd: number): 'map' | 'prog' | 'link' | undefined {
  const [, kind] =
    /^anon_inode:\[?bpf[-_](map|prog|link)\]?$/.exec(readlinkSync(`/proc/self/fd/${fd}`)) ?? [];
  return kind === 'map' || kind === 'prog' || kind === 'link' ? kind : undefined;
}

function refuseOther(path: string, found: Required<MapSizes>, expected: MapSizes): void {
  const wanted: Required<MapSizes> = { ...found, ...expected };
  const differing = (['key', 'value', 'type', 'flags'] as const).filter(
    (part) => found[part] !== wanted[part],
  );
  if (differing.length === 0) return;
  const differences = differing.map((part) => `${part} ${found[part]} instead of ${wanted[part]}`).join(', ');
  throw new BpfError(
    `map ${path} is another one (${differences}): something else than this version of the mesh made it; remove it`,
    { code: 'EINVAL' },
  );
}

function openRemedy(errno: number): string {
  const code = errnoName(errno);
  if (code === 'ENOENT') return 'no node agent of this version has made it';
  if (code === 'EPERM' || code === 'EACCES') return 'root, or CAP_BPF and access to the directory, is needed';
  return '';
}
