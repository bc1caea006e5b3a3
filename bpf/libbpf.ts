import koffi from 'koffi';
import { BpfUnsupportedError } from './errors.ts';

/**
 * libbpf.so.1 by name, loaded at first use. Its calls return 0 or a descriptor, or a negative errno; those that return a
 * pointer return null and set errno. What it would print is dropped: the programs' logs are asked for by buffer instead,
 * since a printing function of ours would be called in whichever thread of the process uses the library.
 */

/** An object, map or program of libbpf's, as a pointer. */
export type Handle = object | bigint | number;

export interface Libbpf {
  readonly libbpf_set_print: (print: null) => unknown;
  readonly libbpf_probe_bpf_prog_type: (type: number, options: null) => number;
  readonly libbpf_probe_bpf_map_type: (type: number, options: null) => number;
  readonly libbpf_probe_bpf_helper: (progType: number, helper: number, options: null) => number;

  readonly bpf_map_lookup_elem: (fd: number, key: Uint8Array, value: Uint8Array) => number;
  readonly bpf_map_update_elem: (fd: number, key: Uint8Array, value: Uint8Array, flags: number) => number;
  readonly bpf_map_delete_elem: (fd: number, key: Uint8Array) => number;
  readonly bpf_map_get_next_key: (fd: number, key: Uint8Array | null, next: Uint8Array) => number;
  readonly bpf_map_create: (
    type: number,
    name: string,
    keySize: number,
    valueSize: number,
    maxEntries: number,
    options: null,
  ) => number;

  readonly bpf_obj_get: (path: string) => number;
  readonly bpf_obj_pin: (fd: number, path: string) => number;
  readonly bpf_obj_get_info_by_fd: (fd: number, info: Uint8Array, length: Uint8Array) => number;
  readonly bpf_link_create: (program: number, target: number, attachType: number, options: null) => number;
  readonly bpf_link_update: (link: number, program: number, options: null) => number;
  readonly bpf_prog_attach: (program: number, target: number, attachType: number, flags: number) => number;

  readonly bpf_object__open_mem: (file: Uint8Array, size: number, options: null) => Handle | null;
  readonly bpf_object__load: (object: Handle) => number;
  readonly bpf_object__close: (object: Handle) => void;
  readonly bpf_object__next_map: (object: Handle, previous: Handle | null) => Handle | null;
  readonly bpf_object__find_map_by_name: (object: Handle, name: string) => Handle | null;
  readonly bpf_object__next_program: (object: Handle, previous: Handle | null) => Handle | null;
  readonly bpf_map__name: (map: Handle) => string;
  readonly bpf_map__fd: (map: Handle) => number;
  readonly bpf_map__reuse_fd: (map: Handle, fd: number) => number;
  readonly bpf_map__set_initial_value: (map: Handle, value: Uint8Array, size: number) => number;
  readonly bpf_program__name: (program: Handle) => string;
  readonly bpf_program__fd: (program: Handle) => number;
  readonly bpf_program__expected_attach_type: (program: Handle) => number;
  readonly bpf_program__set_log_buf: (program: Handle, log: Uint8Array, size: number) => number;

  readonly bpf_tc_hook_create: (hook: Uint8Array) => number;
  readonly bpf_tc_attach: (hook: Uint8Array, options: Uint8Array) => number;
  readonly bpf_tc_detach: (hook: Uint8Array, options: Uint8Array) => number;
  readonly bpf_tc_query: (hook: Uint8Array, options: Uint8Array) => number;
}

const FUNCTIONS: Readonly<Record<keyof Libbpf, string>> = {
  libbpf_set_print: 'void *libbpf_set_print(void *print)',
  libbpf_probe_bpf_prog_type: 'int libbpf_probe_bpf_prog_type(int type, const void *options)',
  libbpf_probe_bpf_map_type: 'int libbpf_probe_bpf_map_type(int type, const void *options)',
  libbpf_probe_bpf_helper: 'int libbpf_probe_bpf_helper(int type, int helper, const void *options)',

  bpf_map_lookup_elem: 'int bpf_map_lookup_elem(int fd, const void *key, void *value)',
  bpf_map_update_elem: 'int bpf_map_update_elem(int fd, const void *key, const void *value, uint64 flags)',
  bpf_map_delete_elem: 'int bpf_map_delete_elem(int fd, const void *key)',
  bpf_map_get_next_key: 'int bpf_map_get_next_key(int fd, const void *key, void *next)',
  bpf_map_create:
    'int bpf_map_create(int type, const char *name, uint32 key, uint32 value, uint32 max, const void *options)',

  bpf_obj_get: 'int bpf_obj_get(const char *path)',
  bpf_obj_pin: 'int bpf_obj_pin(int fd, const char *path)',
  bpf_obj_get_info_by_fd: 'int bpf_obj_get_info_by_fd(int fd, void *info, void *length)',
  bpf_link_create: 'int bpf_link_create(int program, int target, int attachType, const void *options)',
  bpf_link_update: 'int bpf_link_update(int link, int program, const void *options)',
  bpf_prog_attach: 'int bpf_prog_attach(int program, int target, int attachType, uint32 flags)',

  bpf_object__open_mem: 'void *bpf_object__open_mem(const void *file, size_t size, const void *options)',
  bpf_object__load: 'int bpf_object__load(void *object)',
  bpf_object__close: 'void bpf_object__close(void *object)',
  bpf_object__next_map: 'void *bpf_object__next_map(const void *object, const void *previous)',
  bpf_object__find_map_by_name: 'void *bpf_object__find_map_by_name(const void *object, const char *name)',
  bpf_object__next_program: 'void *bpf_object__next_program(const void *object, void *previous)',
  bpf_map__name: 'const char *bpf_map__name(const void *map)',
  bpf_map__fd: 'int bpf_map__fd(const void *map)',
  bpf_map__reuse_fd: 'int bpf_map__reuse_fd(void *map, int fd)',
  bpf_map__set_initial_value: 'int bpf_map__set_initial_value(void *map, const void *value, size_t size)',
  bpf_program__name: 'const char *bpf_program__name(const void *program)',
  bpf_program__fd: 'int bpf_program__fd(const void *program)',
  bpf_program__expected_attach_type: 'int bpf_program__expected_attach_type(const void *program)',
  bpf_program__set_log_buf: 'int bpf_program__set_log_buf(void *program, void *log, size_t size)',

  bpf_tc_hook_create: 'int bpf_tc_hook_create(void *hook)',
  bpf_tc_attach: 'int bpf_tc_attach(const void *hook, void *options)',
  bpf_tc_detach: 'int bpf_tc_detach(const void *hook, const void *options)',
  bpf_tc_query: 'int bpf_tc_query(const void *hook, void *options)',
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
    const calls = Object.fromEntries(functions) as Libbpf;
    calls.libbpf_set_print(null);
    return calls;
  } catch (error) {
    throw new BpfUnsupportedError(`${name} cannot be used: install libbpf 1 (Debian: libbpf1)`, {
      feature: 'libbpf',
      cause: error,
    });
  }
}
