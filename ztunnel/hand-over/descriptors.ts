import koffi from 'koffi';
import type { HostPort } from '#api/address.ts';
import { setAbruptClose } from '../capture/abrupt-close.ts';
import { closeDescriptor, namespaceId } from '../capture/in-pod-sockets.ts';
import {
  AF_INET,
  AF_INET6,
  check,
  readSockaddr,
  SOCK_DGRAM,
  SOCK_STREAM,
  SOCKADDR_SIZE,
  SOL_SOCKET,
  sys,
  writeSockaddr,
} from '../capture/native.ts';

/** Descriptors of another process, and what they are. Everything here is synchronous. */

/** The same numbers on every architecture (Linux 5.3 and 5.6). */
const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;
const F_DUPFD_CLOEXEC = 1030;
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;
/** ioctl(2) on a socket: a descriptor of its network namespace (linux/sockios.h). */
const SIOCGSKNS = 0x894c;

const libc = koffi.load('libc.so.6');
const syscall: (number: number, first: number, second: number, third: number) => number = libc.func(
  'long syscall(long number, long first, long second, long third)',
);
const fcntl: (fd: number, command: number, value: number) => number = libc.func(
  'int fcntl(int fd, int command, long value)',
);
const ioctl: (fd: number, request: number) => number = libc.func('int ioctl(int fd, unsigned long request)');
const getsockname: (fd: number, into: Uint8Array, size: Uint8Array) => number = libc.func(
  'int getsockname(int fd, void *into, void *size)',
);
const sendto: (
  fd: number,
  from: Uint8Array,
  size: number,
  flags: number,
  to: Uint8Array,
  toSize: number,
) => number = libc.func(
  'long sendto(int fd, const void *from, size_t size, int flags, const void *to, uint32 toSize)',
);

/** What a socket is: a TCP socket that listens, or a bound UDP socket. */
export interface SocketDescription {
  readonly protocol: 'tcp' | 'udp';
  readonly address: HostPort;
}

/** A descriptor that stands for a process, close-on-exec; the caller closes it. @throws NativeError ESRCH: it is gone */
export function openProcess(pid: number): number {
  return check(`pidfd_open of process ${pid}`, syscall(SYS_PIDFD_OPEN, pid, 0, 0));
}

/**
 * A duplicate, close-on-exec, of what another process has open: both share it from then on. The caller closes it.
 * @throws NativeError ESRCH: the process is gone; EBADF: it has closed it; EPERM: it may not be looked into
 */
export function takeDescriptor(pidfd: number, fd: number): number {
  return check(`pidfd_getfd of descriptor ${fd}`, syscall(SYS_PIDFD_GETFD, pidfd, fd, 0));
}

/** Another descriptor, close-on-exec, of the same open file. The caller closes it. @throws NativeError */
export function duplicate(fd: number): number {
  return check('fcntl', fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

const address = Buffer.alloc(SOCKADDR_SIZE[6]);
const size = Buffer.alloc(4);

/** Closes a connected TCP socket with a reset, if nobody else has it open. */
export function resetDescriptor(fd: number): void {
  setAbruptClose(fd, true);
  closeDescriptor(fd);
}

/** What a socket is; undefined when it is something else than a TCP listener or a UDP socket, or not open. */
export function describeSocket(fd: number): SocketDescription | undefined {
  const type = socketOption(fd, SO_TYPE);
  const listens = socketOption(fd, SO_ACCEPTCONN) === 1;
  if (type !== SOCK_DGRAM && !(type === SOCK_STREAM && listens)) return undefined;
  size.writeUInt32LE(address.length);
  if (getsockname(fd, address, size) < 0) return undefined;
  const family = address.readUInt16LE(0);
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  return { protocol: type === SOCK_DGRAM ? 'udp' : 'tcp', address: readSockaddr(address) };
}

/** The network namespace of a socket, as `namespaceId` tells it of its own descriptors. @throws NativeError */
export function namespaceOfSocket(fd: number): string {
  const netnsFd = check('ioctl SIOCGSKNS', ioctl(fd, SIOCGSKNS));
  try {
    return namespaceId(netnsFd);
  } finally {
    closeDescriptor(netnsFd);
  }
}

/** Sends a datagram at once, or not at all: what does not fit the socket's buffer is lost, as it may be on any way. */
export function sendDatagram(fd: number, message: Uint8Array, to: HostPort): void {
  sendto(fd, message, message.length, 0, address, writeSockaddr(address, to.ip, to.port));
}

function socketOption(fd: number, option: number): number | undefined {
  const value = Buffer.alloc(4);
  size.writeUInt32LE(4);
  return sys.getsockopt(fd, SOL_SOCKET, option, value, size) < 0 ? undefined : value.readUInt32LE();
}
