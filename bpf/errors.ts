import { getSystemErrorMessage } from 'node:util';
import { NativeError } from '#ztunnel/capture/native.ts';

/** Something of the kernel's part failed; the message says what, where, and what helps if that is known. */
export class BpfError extends Error {
  override readonly name = 'BpfError';
  /** The errno's name (`ENOSPC`), or one of ours for what is not a system call's error. */
  readonly code: string;

  constructor(message: string, options: ErrorOptions & { readonly code: string }) {
    super(message, options);
    this.code = options.code;
  }
}

/** What has to be there for capture by eBPF. */
export type BpfFeature =
  | 'libbpf'
  | 'bpffs'
  | 'cgroup2'
  | 'bpf'
  | 'maps'
  | 'programs'
  | 'cgroup_links'
  | 'netns_cookie'
  | 'sk_lookup'
  | 'egress';

/** This machine cannot do it, found by trying; the message says what is missing and what would help. */
export class BpfUnsupportedError extends Error {
  override readonly name = 'BpfUnsupportedError';
  readonly feature: BpfFeature;

  constructor(message: string, options: ErrorOptions & { readonly feature: BpfFeature }) {
    super(message, options);
    this.feature = options.feature;
  }
}

/** errno's name, for a positive number. */
export function errnoName(errno: number): string {
  // Of the kernel's own numbers, which programs never should see, bpf(2) uses this one.
  return errno === 524 ? 'ENOTSUPP' : new NativeError('bpf', errno).code;
}

/** What a system call's errno says of an action. */
export function bpfError(action: string, errno: number, remedy = ''): BpfError {
  const suffix = remedy === '' ? '' : ` (${remedy})`;
  return new BpfError(`${action}: ${describeErrno(errno)}${suffix}`, { code: errnoName(errno) });
}

/** `EPERM: operation not permitted`. */
export function describeErrno(errno: number): string {
  return `${errnoName(errno)}: ${errno === 524 ? 'operation not supported' : getSystemErrorMessage(-errno)}`;
}

/** By the errno's name: the machine is short of something at the moment, which says nothing of what it can do. */
export const PASSING: readonly string[] = ['EMFILE', 'ENFILE', 'ENOMEM', 'ENOSPC', 'EAGAIN', 'EBUSY'];
