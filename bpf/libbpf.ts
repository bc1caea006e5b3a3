import koffi from 'koffi';
import { BpfUnsupportedError } from './errors.ts';

/**
 * libbpf.so.1 by name, loaded at first use. Its calls return 0 or a descriptor, or a negative errno; those that return a
 * pointer return null and set errno.
 */

/** An object of libbpf's; opaque. */
export type Handle = unknown;

export interface Libbpf {
  readonly bpf_map_lookup_elem: (fd: number, key: Uint8Array, value: Uint8Array) => number;
  readonly bpf_map_update_elem: (fd: number, key: Uint8Array, value: Uint8Array, flags: number) => number;
  readonly bpf_map_delete_elem: (fd: number, key: Uint8Array) => number;
  readonly bpf_map_get_next_key: (fd: number, key: Uint8Array | null, next: Uint8Array) => number;
  readonly bpf_obj_get: (path: string) => number;
  readonly bpf_obj_get_info_by_fd: (fd: number, info: Uint8Array, length: Uint8Array) => number;
}

const FUNCTIONS: Readonly<Record<keyof Libbpf, string>> = {
  bpf_map_lookup_elem: 'int bpf_map_lookup_elem(int fd, const void *key, void *value)',
  bpf_map_update_elem: 'int bpf_map_update_elem(int fd, const void *key, const void *value, uint64 flags)',
  bpf_map_delete_elem: 'int bpf_map_delete_elem(int fd, const void *key)',
  bpf_map_get_next_key: 'int bpf_map_get_next_key(int fd, const void *key, void *next)',
  bpf_obj_get: 'int bpf_obj_get(const char *path)',
  bpf_obj_get_info_by_fd: 'int bpf_obj_get_info_by_fd(int fd, void *info, void *length)',
};

/** The library's name; a soname, so that the system's search path and updates hold. */
const LIBRARY = 'libbpf.so.1';

let loaded: Libbpf | undefined;

/** @throws BpfUnsupportedError when the library is not there */
export function libbpf(): Libbpf {
  loaded ??= loadLibbpf(LIBRARY);
  return loaded;
}

/** The library of that name or path. @throws BpfUnsupportedError */
export function loadLibbpf(name: string): Libbpf {
  try {
    const library = koffi.load(name);
    const functions = Object.entries(FUNCTIONS).map(([key, signature]) => [key, library.func(signature)]);
    return Object.fromEntries(functions) as Libbpf;
  } catch (error) {
    throw new BpfUnsupportedError(`${name} cannot be used: install libbpf 1 (Debian: libbpf1)`, {
      feature: 'libbpf',
      cause: error,
    });
  }
}
