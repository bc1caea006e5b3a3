import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { lastErrno } from '#ztunnel/capture/native.ts';
import { BpfError, bpfError, describeErrno, errnoName, PASSING } from './errors.ts';
import { type Handle, libbpf } from './libbpf.ts';

/** Compiled programs, as `bpf/build` leaves them: loading them into the kernel, with the maps that are there already. */

/** The objects: the hooks of a mesh's cgroup, those of one pod's network namespace, and the kernel splice. */
export type ObjectName = 'cgroup' | 'pod' | 'splice';

/** A program that the kernel has taken. */
export interface LoadedProgram {
  readonly name: string;
  /** Valid until the object is closed. */
  readonly fd: number;
  /** By its section's name (enum bpf_attach_type); 0 where that says nothing. */
  readonly attachType: number;
}

/** To be closed: programs that are attached, and maps that are pinned, stay. */
export interface LoadedObject {
  readonly programs: ReadonlyMap<string, LoadedProgram>;
  /** Descriptors by the maps' names, those that were given and those that were made; valid until it is closed. */
  readonly maps: ReadonlyMap<string, number>;
  readonly close: () => void;
}

export interface LoadOptions {
  /** Maps that are there already, by name; the others are made. */
  readonly maps: ReadonlyMap<string, number>;
  /** Bytes of the object's constants (its section .rodata); undefined: as compiled. */
  readonly constants?: Buffer;
}

/** The code of the error when the kernel has looked at a program and says what is wrong with it. */
export const REFUSED = 'REFUSED';

/** The bytes of an object file. Read once by who loads it often: an update of the files does not mix versions then. */
export function readObject(name: ObjectName): Buffer {
  return readFileSync(join(import.meta.dirname, 'objects', `${name}.bpf.o`));
}

/**
 * @param name for messages
 * @throws BpfError when the kernel refuses; its code is {@link REFUSED} when the message has what the kernel says of a program
 */
export function loadObject(name: string, file: Buffer, options: LoadOptions): LoadedObject {
  const attempt = tryLoad(name, file, options, undefined);
  if (typeof attempt !== 'number') return attempt;
  // Once more, with memory for what the kernel has to say: most loads do without it.
  const logs = new Map<string, Buffer>();
  const again = tryLoad(name, file, options, logs);
  if (typeof again !== 'number') return again;
  const [refused] = [...logs].filter(([, log]) => log[0] !== 0);
  // It writes there also of programs that it takes, and cannot give us for another reason.
  if (refused === undefined || PASSING.includes(errnoName(attempt)))
    throw bpfError(`load ${name}.bpf.o`, attempt);
  const [program, log] = refused;
  throw new BpfError(`load ${name}.bpf.o, program ${program}: ${describeErrno(attempt)}:\n${endOf(log)}`, {
    code: REFUSED,
  });
}

/**
 * @param logs to be filled with memory in which the kernel wrote why it refuses a program, by program
 * @returns errno when the kernel refuses
 */
function tryLoad(
  name: string,
  file: Buffer,
  options: LoadOptions,
  logs: Map<string, Buffer> | undefined,
): LoadedObject | number {
  const lib = libbpf();
  const object = lib.bpf_object__open_mem(file, file.length, null);
  if (object === null) throw bpfError(`read ${name}.bpf.o`, lastErrno());
  const close = (): void => lib.bpf_object__close(object);
  try {
    for (const [map, fd] of options.maps) reuseMap(name, object, map, fd);
    if (options.constants !== undefined) setConstants(name, object, options.constants);
    if (logs !== undefined) addLogs(object, logs);
    const result = lib.bpf_object__load(object);
    if (result >= 0) return { programs: programsOf(object), maps: mapsOf(object), close };
    close();
    return -result;
  } catch (error) {
    close();
    throw error;
  }
}

/** Maps that an object does not use are no error: each object declares those that it needs. */
function reuseMap(name: string, object: Handle, map: string, fd: number): void {
  const handle = libbpf().bpf_object__find_map_by_name(object, map);
  if (handle === null) return;
  const result = libbpf().bpf_map__reuse_fd(handle, fd);
  if (result < 0) throw bpfError(`use map ${map} for ${name}.bpf.o`, -result);
}

function setConstants(name: string, object: Handle, constants: Buffer): void {
  const section = libbpf().bpf_object__find_map_by_name(object, '.rodata');
  const result =
    section === null ? -ENOENT : libbpf().bpf_map__set_initial_value(section, constants, constants.length);
  if (result < 0) throw bpfError(`set the ${constants.length} bytes of constants of ${name}.bpf.o`, -result);
}

const ENOENT = 2;
const LOG_SIZE = 1024 * 1024;
/** What a log says last is why. */
const LOG_LINES = 12;

function addLogs(object: Handle, logs: Map<string, Buffer>): void {
  const lib = libbpf();
  for (const program of each((previous) => lib.bpf_object__next_program(object, previous))) {
    const log = Buffer.alloc(LOG_SIZE);
    lib.bpf_program__set_log_buf(program, log, log.length);
    logs.set(lib.bpf_program__name(program), log);
  }
}

function endOf(log: Buffer): string {
  const text = log.toString('latin1', 0, log.indexOf(0)).trimEnd();
  return text.split('\n').slice(-LOG_LINES).join('\n');
}

function programsOf(object: Handle): ReadonlyMap<string, LoadedProgram> {
  const lib = libbpf();
  return new Map(
    each((previous) => lib.bpf_object__next_program(object, previous)).map((program) => [
      lib.bpf_program__name(program),
      {
        name: lib.bpf_program__name(program),
        fd: lib.bpf_program__fd(program),
        attachType: lib.bpf_program__expected_attach_type(program),
      },
    ]),
  );
}

function mapsOf(object: Handle): ReadonlyMap<string, number> {
  const lib = libbpf();
  return new Map(
    each((previous) => lib.bpf_object__next_map(object, previous)).map((map) => [
      lib.bpf_map__name(map),
      lib.bpf_map__fd(map),
    ]),
  );
}

function each(next: (previous: Handle | null) => Handle | null): Handle[] {
  const all: Handle[] = [];
  for (let item = next(null); item !== null; item = next(item)) all.push(item);
  return all;
}
