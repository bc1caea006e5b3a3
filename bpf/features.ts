import { closeSync, fstatSync, mkdirSync, openSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { hasCode, sys, withinNamespace } from '#ztunnel/capture/native.ts';
import { attachFilter } from './clsact.ts';
import {
  BpfError,
  type BpfFeature,
  BpfUnsupportedError,
  bpfError,
  describeErrno,
  errnoName,
  PASSING,
} from './errors.ts';
import { MAPS } from './layout.ts';
import { libbpf } from './libbpf.ts';
import { BPF_SK_LOOKUP, BPF_TCX_EGRESS, createLink, type Hook } from './links.ts';
import { REFUSED } from './objects.ts';
import { deviceIndex, openThrowAwayNamespace } from './system-calls.ts';

/** What this machine can do, found by trying and never by its version; what it cannot is said by name. */

const CGROUP2_MAGIC = 0x63677270;
const ARRAY = 2;
/** bpf_get_netns_cookie in enum bpf_func_id of linux/bpf.h. */
const GET_NETNS_COOKIE = 122;

/** enum bpf_prog_type of linux/bpf.h. */
const PROGRAM_TYPES: readonly { readonly name: string; readonly type: number; readonly since: string }[] = [
  { name: 'traffic control', type: 3, since: '4.1' },
  { name: 'sockops', type: 13, since: '4.13' },
  { name: 'socket addresses of a cgroup', type: 18, since: '4.17' },
  { name: 'socket options of a cgroup', type: 25, since: '5.3' },
  { name: 'sk_lookup', type: 30, since: '5.9' },
];
const SOCK_OPS = 13;
const CGROUP_SOCK_ADDR = 18;

/** Installing has 30 of them open at a time; libbpf takes for missing what it cannot try for want of one. */
const DESCRIPTORS = 64;

/** @throws BpfError when this process cannot open as many as are needed */
export function requireDescriptors(): void {
  const opened: number[] = [];
  try {
    while (opened.length < DESCRIPTORS) opened.push(openSync('/', 'r'));
  } catch (error) {
    const code = hasCode(error, 'ENFILE') ? 'ENFILE' : 'EMFILE';
    throw new BpfError(
      `programs cannot be loaded with fewer than ${DESCRIPTORS} free descriptors: raise the limit (ulimit -n)`,
      { code, cause: error },
    );
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}

/** Whether bpf(2) is there for us. @throws BpfUnsupportedError */
export function requireBpf(): void {
  const fd = libbpf().bpf_map_create(ARRAY, 'tulle_try', 4, 4, 1, null);
  if (fd >= 0) {
    sys.close(fd);
    return;
  }
  if (PASSING.includes(errnoName(-fd))) throw bpfError('make a map', -fd);
  throw refused(`bpf(2) says ${describeErrno(-fd)}`);
}

function refused(what: string, cause?: unknown): BpfUnsupportedError {
  return new BpfUnsupportedError(
    `${what}: root with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN is needed, a kernel with CONFIG_BPF_SYSCALL, and nothing ` +
      'that forbids it (seccomp of the container, kernel lockdown)',
    { feature: 'bpf', cause },
  );
}

/** A cgroup of version 2, opened. */
export interface OpenCgroup {
  readonly fd: number;
  /** As links name it. */
  readonly id: bigint;
  readonly close: () => void;
}

/**
 * Opens the cgroup at which programs are attached, and makes it where it is not there. Never the root one: other programs of
 * the machine are there, and all its processes.
 * @throws BpfUnsupportedError
 */
export function openCgroup(path: string): OpenCgroup {
  try {
    if (!isCgroup2(dirname(path)))
      throw new BpfError(`${dirname(path)} is no cgroup of version 2`, { code: 'EINVAL' });
    if (statSync(path, { throwIfNoEntry: false }) === undefined) makeCgroup(path);
    const fd = openSync(path, 'r');
    return { fd, id: fstatSync(fd, { bigint: true }).ino, close: () => closeSync(fd) };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    refusePassing(`programs cannot be attached to cgroup ${path}`, error);
    throw new BpfUnsupportedError(
      `programs cannot be attached to cgroup ${path}: ${reason}; cgroup2 has to be mounted, writable, and the cgroup below its root`,
      { feature: 'cgroup2', cause: error },
    );
  }
}

function makeCgroup(path: string): void {
  try {
    mkdirSync(path);
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error; // another agent was faster
  }
}

function isCgroup2(path: string): boolean {
  return statfsSync(path).type === CGROUP2_MAGIC;
}

/** Which feature it is that loading the programs failed for; errors of another kind stay what they are. */
export function explainLoadError(error: unknown): unknown {
  if (!(error instanceof BpfError) || PASSING.includes(error.code)) return error;
  if (error.code === 'EPERM' || error.code === 'EACCES') return refused(error.message, error);
  const missing = findMissing();
  if (missing !== undefined)
    return new BpfUnsupportedError(`${missing.what} (${error.message})`, {
      feature: missing.feature,
      cause: error,
    });
  if (![REFUSED, 'EINVAL', 'ENOTSUPP'].includes(error.code)) return error;
  return new BpfUnsupportedError(`this kernel does not take the programs: ${error.message}`, {
    feature: 'programs',
    cause: error,
  });
}

/** Asks for each thing alone. */
function findMissing(): { readonly feature: BpfFeature; readonly what: string } | undefined {
  const lib = libbpf();
  for (const [name, { type }] of Object.entries(MAPS))
    if (lib.libbpf_probe_bpf_map_type(type, null) === 0)
      return { feature: 'maps', what: `this kernel has no maps of the type of ${name} (Linux 5.2 has)` };
  for (const { name, type, since } of PROGRAM_TYPES)
    if (lib.libbpf_probe_bpf_prog_type(type, null) === 0)
      return { feature: 'programs', what: `this kernel has no programs for ${name} (Linux ${since} has)` };
  for (const type of [CGROUP_SOCK_ADDR, SOCK_OPS])
    if (lib.libbpf_probe_bpf_helper(type, GET_NETNS_COOKIE, null) === 0)
      return {
        feature: 'netns_cookie',
        what: 'programs cannot tell network namespaces apart in this kernel (Linux 5.15 can)',
      };
  return undefined;
}

/** How the egress program is attached: by a link, or as a filter where the kernel has no links for it. */
export type EgressMethod = 'tcx' | 'clsact';

/** Descriptors of a pod's two programs. */
export interface PodPrograms {
  readonly lookup: number;
  readonly egress: number;
}

/**
 * Attaches a pod's programs to a network namespace of nobody's.
 * @param load loads them for that namespace
 * @param only for tests: as if this kernel had only that way
 * @throws BpfUnsupportedError
 */
export function tryInNamespace(
  load: (netnsFd: number) => PodPrograms & { readonly close: () => void },
  only: EgressMethod | undefined,
): EgressMethod {
  const netnsFd = attempt('sk_lookup', 'no network namespace can be made', openThrowAwayNamespace);
  try {
    const programs = load(netnsFd);
    try {
      attempt('sk_lookup', 'no program can be attached to a network namespace (Linux 5.9 can)', () =>
        sys.close(createLink('lookup', lookupHook(netnsFd), programs.lookup)),
      );
      return tryEgress(netnsFd, programs.egress, only);
    } finally {
      programs.close();
    }
  } finally {
    sys.close(netnsFd);
  }
}

function tryEgress(netnsFd: number, program: number, only: EgressMethod | undefined): EgressMethod {
  const index = deviceIndex(netnsFd, 'lo');
  return attempt('egress', 'no program can be attached to a device, by tcx or clsact', () =>
    withinNamespace(netnsFd, () => {
      if (only !== 'clsact' && hasTcx(index, program)) return 'tcx';
      attachFilter(index, program);
      return 'clsact';
    }),
  );
}

function hasTcx(index: number, program: number): boolean {
  try {
    sys.close(createLink('egress', egressHook(index), program));
    return true;
  } catch (error) {
    if (hasCode(error, 'EINVAL')) return false; // a kernel that does not know the hook
    throw error;
  }
}

/** @throws BpfError when that is why */
function refusePassing(what: string, error: unknown): void {
  const code = PASSING.find((passing) => hasCode(error, passing));
  if (code === undefined) return;
  const reason = error instanceof Error ? error.message : String(error);
  throw new BpfError(`${what} at the moment: ${reason}`, { code, cause: error });
}

/**
 * Does something that a feature is needed for.
 * @throws BpfUnsupportedError when that fails; BpfError when it may work another time
 */
export function attempt<T>(feature: BpfFeature, what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    refusePassing(what, error);
    throw new BpfUnsupportedError(`${what}: ${reason}`, { feature, cause: error });
  }
}

/** Where connections and datagrams that come to a network namespace look for their socket. */
export function lookupHook(netnsFd: number): Hook {
  return {
    kind: 'netns',
    attachType: BPF_SK_LOOKUP,
    target: netnsFd,
    identity: BigInt(fstatSync(netnsFd).ino),
  };
}

/** What leaves by a device; to be attached within the device's namespace. */
export function egressHook(deviceIndex: number): Hook {
  return {
    kind: 'tcx',
    attachType: BPF_TCX_EGRESS,
    target: deviceIndex,
    identity: BigInt(deviceIndex),
  };
}
