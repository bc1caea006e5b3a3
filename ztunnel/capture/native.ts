import os from 'node:os';
import { getSystemErrorMessage } from 'node:util';
import koffi from 'koffi';
import { AddressError, type HostPort, type Ip, ipFromBytes, ipToBytes } from '#api/address.ts';

/**
 * The system calls that Node.js has no words for, straight from the C library. Everything here is synchronous and works
 * in the main thread and in worker threads alike.
 */

/** A failed system call; `code` is the errno's name (`EADDRINUSE`), as in Node.js's own errors. */
export class NativeError extends Error {
  override readonly name = 'NativeError';
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, errno: number) {
    const code = ERRNO_NAMES.get(errno) ?? `ERRNO_${errno}`;
    super(`${syscall}: ${code}: ${getSystemErrorMessage(-errno)}`);
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
  }
}

/** Whether an error is that of a failed call, ours or Node.js's, with that code. */
export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(os.constants.errno)
    // Two names of one number: the one that error messages use wins.
    .filter(([name]) => name !== 'EWOULDBLOCK' && name !== 'EOPNOTSUPP')
    .map(([name, number]) => [number, name]),
);

export const AF_UNIX: 1 = 1;
export const AF_INET: 2 = 2;
export const AF_INET6: 10 = 10;
export const SOCK_STREAM: 1 = 1;
export const SOCK_DGRAM: 2 = 2;
export const SOCK_SEQPACKET: 5 = 5;
export const SOCK_NONBLOCK = 0o4000 as const;
export const SOCK_CLOEXEC = 0o2000000 as const;
export const SOL_IP: 0 = 0;
export const SOL_SOCKET: 1 = 1;
export const SOL_IPV6: 41 = 41;
const CLONE_NEWNET = 0x40000000;
/** ioctl(2) on a namespace's descriptor: which kind of namespace it is. */
const NS_GET_NSTYPE = 0xb703;
const O_RDONLY_CLOEXEC = 0o2000000;
const RLIMIT_NOFILE = 7;

const libc = koffi.load('libc.so.6');

/** The raw calls; a negative result means that {@link lastErrno} tells why. */
export const sys: {
  readonly socket: (domain: number, type: number, protocol: number) => number;
  readonly bind: (fd: number, address: Uint8Array, length: number) => number;
  readonly connect: (fd: number, address: Uint8Array, length: number) => number;
  readonly listen: (fd: number, backlog: number) => number;
  readonly accept: (fd: number, address: null, length: null, flags: number) => number;
  readonly close: (fd: number) => number;
  readonly setsockopt: (fd: number, level: number, option: number, value: Uint8Array, size: number) => number;
  readonly getsockopt: (
    fd: number,
    level: number,
    option: number,
    value: Uint8Array,
    size: Uint8Array,
  ) => number;
  readonly sendmsg: (fd: number, header: Uint8Array, flags: number) => number;
  readonly recvmsg: (fd: number, header: Uint8Array, flags: number) => number;
  readonly read: (fd: number, into: Uint8Array, size: number) => number;
  readonly write: (fd: number, from: Uint8Array, size: number) => number;
  readonly eventfd: (initial: number, flags: number) => number;
} = {
  socket: libc.func('int socket(int domain, int type, int protocol)'),
  bind: libc.func('int bind(int fd, const void *address, uint32 length)'),
  connect: libc.func('int connect(int fd, const void *address, uint32 length)'),
  listen: libc.func('int listen(int fd, int backlog)'),
  accept: libc.func('int accept4(int fd, void *address, void *length, int flags)'),
  close: libc.func('int close(int fd)'),
  setsockopt: libc.func('int setsockopt(int fd, int level, int option, const void *value, uint32 size)'),
  getsockopt: libc.func('int getsockopt(int fd, int level, int option, void *value, void *size)'),
  sendmsg: libc.func('long sendmsg(int fd, const void *header, int flags)'),
  recvmsg: libc.func('long recvmsg(int fd, void *header, int flags)'),
  read: libc.func('long read(int fd, void *into, size_t size)'),
  write: libc.func('long write(int fd, const void *from, size_t size)'),
  eventfd: libc.func('int eventfd(uint32 initial, int flags)'),
};
const getrlimit: (resource: number, limits: Uint8Array) => number = libc.func(
  'int getrlimit(int resource, void *limits)',
);
const open: (path: string, flags: number) => number = libc.func('int open(const char *path, int flags)');
const setns: (fd: number, type: number) => number = libc.func('int setns(int fd, int type)');
const ioctl: (fd: number, request: number) => number = libc.func('int ioctl(int fd, unsigned long request)');

const poll = libc.func('int poll(void *entries, unsigned long count, int timeout)');

/**
 * poll(2) in a thread of libuv's pool; `entries` is an array of struct pollfd, which has the results when `done` is called
 * in this thread.
 */
export function pollAsync(entries: Uint8Array, count: number, timeoutMs: number, done: () => void): void {
  poll.async(entries, count, timeoutMs, done);
}

/** errno of this thread's last failed call; to be read at once. */
export function lastErrno(): number {
  return koffi.errno();
}

/**
 * The result of a call that succeeded.
 * @throws NativeError when it is negative
 */
export function check(syscall: string, result: number): number {
  if (result < 0) throw new NativeError(syscall, koffi.errno());
  return result;
}

const four = Buffer.alloc(4);

/** @throws NativeError */
export function setIntOption(fd: number, level: number, option: number, value: number): void {
  four.writeInt32LE(value);
  check(`setsockopt(${level}, ${option})`, sys.setsockopt(fd, level, option, four, 4));
}

/** Opens a file for reading, close-on-exec, without any thread but this one. @throws NativeError */
export function openDescriptor(path: string): number {
  return check(`open ${path}`, open(path, O_RDONLY_CLOEXEC));
}

const limits = Buffer.alloc(16); // struct rlimit: now, at most

/** How many descriptors this process may have open. Needs none itself. @throws NativeError */
export function descriptorLimit(): bigint {
  check('getrlimit', getrlimit(RLIMIT_NOFILE, limits));
  return limits.readBigUInt64LE();
}

/** Whether the descriptor is that of a network namespace. */
export function isNetworkNamespace(fd: number): boolean {
  return ioctl(fd, NS_GET_NSTYPE) === CLONE_NEWNET;
}

/** This thread's own network namespace: setns(2) moves one thread, so each has its handle. */
let home: number | undefined;
let poolIsWarm = false;

/** For `warmThreadPool` in in-pod-sockets.ts: says that libuv's threads have been born, at home. */
export function allowNamespaces(): void {
  poolIsWarm = true;
}

/**
 * Runs `work` with this thread in another network namespace. `work` must be wholly synchronous and must not start
 * threads or processes, since they would be born, and stay, in that namespace. The way back failing aborts the process:
 * everything that it did from then on would happen in the wrong network.
 * @param namespaceFd of a namespace, stays open; undefined: no change.
 * @throws NativeError when the namespace cannot be entered, and whatever `work` throws
 */
export function withinNamespace<T>(namespaceFd: number | undefined, work: () => T): T {
  if (namespaceFd === undefined) return work();
  if (!poolIsWarm) throw new TypeError('warmThreadPool() has to be awaited before a namespace is entered');
  home ??= openDescriptor('/proc/thread-self/ns/net');
  check('setns', setns(namespaceFd, CLONE_NEWNET));
  try {
    return work();
  } finally {
    if (setns(home, CLONE_NEWNET) !== 0) process.abort();
  }
}

const SO_NETNS_COOKIE = 71;

/**
 * What the kernel calls a network namespace by: a number that no other ever gets while the machine is up.
 * @throws NativeError when the namespace cannot be entered; ENOPROTOOPT before Linux 5.14
 */
export function namespaceCookie(netnsFd: number): bigint {
  const fd = withinNamespace(netnsFd, () =>
    check('socket', sys.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)),
  );
  try {
    const value = Buffer.alloc(8);
    const size = Buffer.alloc(4);
    size.writeUInt32LE(value.length);
    check('getsockopt SO_NETNS_COOKIE', sys.getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, value, size));
    return value.readBigUInt64LE();
  } finally {
    sys.close(fd);
  }
}

/** Bytes of struct sockaddr_in and sockaddr_in6. */
export const SOCKADDR_SIZE: { readonly 4: 16; readonly 6: 28 } = { 4: 16, 6: 28 };

/**
 * Writes struct sockaddr_in or sockaddr_in6 into a buffer of at least 28 bytes; no allocation for IPv4.
 * @returns the structure's size
 * @throws AddressError
 */
export function writeSockaddr(into: Buffer, ip: Ip, port: number): number {
  into.fill(0);
  into.writeUInt16BE(port, 2);
  if (ip.includes(':')) {
    into.writeUInt16LE(AF_INET6, 0);
    into.set(ipToBytes(ip), 8);
    return SOCKADDR_SIZE[6];
  }
  into.writeUInt16LE(AF_INET, 0);
  writeIpv4(into, 4, ip);
  return SOCKADDR_SIZE[4];
}

function writeIpv4(into: Buffer, offset: number, ip: Ip): void {
  let at = offset;
  let byte = 0;
  for (let index = 0; index < ip.length; index++) {
    const code = ip.charCodeAt(index);
    if (code === 0x2e) {
      into[at++] = byte;
      byte = 0;
    } else byte = byte * 10 + (code - 0x30);
  }
  into[at] = byte;
  if (at !== offset + 3 || byte > 255) throw new AddressError(`not an IP address: ${JSON.stringify(ip)}`);
}

/** Reads struct sockaddr_in or sockaddr_in6. @throws AddressError for another family */
export function readSockaddr(from: Buffer): HostPort {
  const family = from.readUInt16LE(0);
  if (family !== AF_INET && family !== AF_INET6) throw new AddressError(`address family ${family}`);
  const bytes = family === AF_INET ? from.subarray(4, 8) : from.subarray(8, 24);
  return { ip: ipFromBytes(bytes), port: from.readUInt16BE(2) };
}
