import { fstatSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { familyOf, type HostPort, type Ip } from '#api/address.ts';
import { PACKET_MARK } from './capture.ts';
import {
  AF_INET,
  AF_INET6,
  allowNamespaces,
  check,
  hasCode,
  isNetworkNamespace,
  NativeError,
  openDescriptor,
  readSockaddr,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOCKADDR_SIZE,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
  setIntOption,
  sys,
  withinNamespace,
} from './native.ts';
import { bindAddress, bindForeignSource, bindTo } from './source-port.ts';

/**
 * Sockets inside a pod's network namespace, made from outside it. A socket keeps the namespace in which it was created,
 * so only socket(2) happens inside; everything else, and all use, is at home. Descriptors that these functions return
 * belong to the caller, who hands them to `net` or `dgram` or closes them with {@link closeDescriptor}.
 */

const SO_REUSEADDR = 2;
const SO_REUSEPORT = 15;
const SO_MARK = 36;
const IP_FREEBIND = 15;
const IP_TRANSPARENT = 19;
const IPV6_V6ONLY = 26;
const IPV6_TRANSPARENT = 75;
const IPV6_FREEBIND = 78;
/** The same number at SOL_IP and at SOL_IPV6 (linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h). */
const SO_ORIGINAL_DST = 80;

/**
 * Has libuv start its pool of threads now, at home: they are born at the first asynchronous file, DNS or crypto call of
 * the process, in whichever namespace the calling thread is then, and stay there. To be awaited once in every thread
 * before its first socket in a namespace.
 */
export async function warmThreadPool(): Promise<void> {
  await stat('/');
  allowNamespaces();
}

/**
 * Opens a network namespace: `/run/netns/NAME`, `/proc/PID/ns/net`. The descriptor keeps the namespace alive until it is
 * closed.
 * @throws NativeError; TypeError when the path is something else than a network namespace
 */
export function openNamespace(path: string): number {
  const fd = openDescriptor(path);
  if (isNetworkNamespace(fd)) return fd;
  sys.close(fd);
  throw new TypeError(`${path} is not a network namespace (its owner may have removed it)`);
}

/** `device:inode`: equal exactly if two descriptors are of the same namespace. */
export function namespaceId(fd: number): string {
  const { dev, ino } = fstatSync(fd);
  return `${dev}:${ino}`;
}

/** @throws NativeError */
export function closeDescriptor(fd: number): void {
  check('close', sys.close(fd));
}

/**
 * Done to a socket before anything else: tells the programs in the kernel that it is the ztunnel's own. Sockets that a
 * listening one accepts are as well.
 */
export type SocketTag = (fd: number) => void;

export interface ListenOptions {
  /** `::` takes IPv4 as well. */
  readonly ip: Ip;
  readonly port: number;
  /** Whether it may accept connections to addresses that are not the namespace's own. */
  readonly transparent: boolean;
  readonly backlog: number;
  readonly tag?: SocketTag;
}

/**
 * A listening, non-blocking, marked TCP socket for `server.listen({ fd })`. SO_REUSEPORT is set, so that each worker, and
 * a second ztunnel during an upgrade, can have one of its own on the same port.
 * @throws NativeError
 */
export function listenInNamespace(netnsFd: number | undefined, options: ListenOptions): number {
  const family = familyOf(options.ip);
  return makeSocket(netnsFd, family, SOCK_STREAM, (fd) => {
    options.tag?.(fd);
    setIntOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    setIntOption(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (family === 6) setIntOption(fd, SOL_IPV6, IPV6_V6ONLY, options.ip === '::' ? 0 : 1);
    if (options.transparent) setTransparent(fd, family);
    bindTo(fd, options.ip, options.port);
    check('listen', sys.listen(fd, options.backlog));
  });
}

/**
 * A bound, marked UDP socket for `dgram`'s `bind({ fd })`. SO_REUSEPORT as above unless the port is 0.
 * @throws NativeError
 */
export function bindUdp(netnsFd: number | undefined, address: HostPort, tag?: SocketTag): number {
  const family = familyOf(address.ip);
  return makeSocket(netnsFd, family, SOCK_DGRAM, (fd) => {
    tag?.(fd);
    if (address.port !== 0) setIntOption(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (family === 6) setIntOption(fd, SOL_IPV6, IPV6_V6ONLY, 1);
    bindTo(fd, address.ip, address.port);
  });
}

/**
 * Where a connection starts: at an address of anybody's (a caller's, for its application), with a port that is chosen here,
 * see {@link bindForeignSource}; or at one that the namespace has, with a port that is free for the destination.
 */
export interface DialSource {
  readonly kind: 'foreign' | 'local';
  readonly ip: Ip;
}

export interface DialOptions {
  readonly family: 4 | 6;
  /** Absent: as the kernel chooses. */
  readonly source?: DialSource;
  readonly tag?: SocketTag;
}

/**
 * An unconnected, non-blocking, marked TCP socket, for `new net.Socket({ fd, … })` and, in the same tick, its `connect`,
 * which then reports real errors. Should that fail with EADDRNOTAVAIL, a port that was chosen here was taken for this very
 * destination after all, so dial again; or there is none left.
 * @throws NativeError
 */
export function dialSocket(netnsFd: number | undefined, options: DialOptions): number {
  const { family, source, tag } = options;
  return makeSocket(netnsFd, family, SOCK_STREAM, (fd) => {
    tag?.(fd);
    if (source?.kind === 'local') bindAddress(fd, source.ip);
    if (source?.kind !== 'foreign') return;
    setTransparent(fd, family);
    bindForeignSource(fd, source.ip);
  });
}

const optionSize = Buffer.alloc(4);
const address = Buffer.alloc(SOCKADDR_SIZE[6]);

/**
 * Where a redirected connection was going: netfilter's record for an accepted socket, IPv4 (also on a dual-stack
 * listener) or IPv6. Undefined when there is no record, because no connection tracking is on.
 */
export function originalDestination(fd: number): HostPort | undefined {
  optionSize.writeUInt32LE(SOCKADDR_SIZE[4]);
  if (sys.getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, address, optionSize) === 0) return readSockaddr(address);
  optionSize.writeUInt32LE(SOCKADDR_SIZE[6]);
  if (sys.getsockopt(fd, SOL_IPV6, SO_ORIGINAL_DST, address, optionSize) === 0) return readSockaddr(address);
  return undefined;
}

/**
 * Whether the address is the namespace's own: one of an interface, a loopback address, or the unspecified one. In
 * doubt (the kernel was told to bind to anything, or refuses for another reason) it is.
 * @throws NativeError when the namespace cannot be entered
 */
export function isLocalAddress(netnsFd: number | undefined, ip: Ip): boolean {
  if (ip === '::' || ip === '::1' || ip.startsWith('127.') || ip.startsWith('0.')) return true;
  try {
    closeDescriptor(makeSocket(netnsFd, familyOf(ip), SOCK_DGRAM, (fd) => bindTo(fd, ip, 0)));
    return true;
  } catch (error) {
    if (hasCode(error, 'EADDRNOTAVAIL')) return false;
    if (error instanceof NativeError && error.syscall.startsWith('bind')) return true;
    throw error;
  }
}

function makeSocket(
  netnsFd: number | undefined,
  family: 4 | 6,
  type: number,
  prepare: (fd: number) => void,
): number {
  const domain = family === 6 ? AF_INET6 : AF_INET;
  const fd = withinNamespace(netnsFd, () =>
    check('socket', sys.socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)),
  );
  try {
    setIntOption(fd, SOL_SOCKET, SO_MARK, PACKET_MARK);
    prepare(fd);
    return fd;
  } catch (error) {
    sys.close(fd);
    throw error;
  }
}

function setTransparent(fd: number, family: 4 | 6): void {
  if (family === 6) {
    setIntOption(fd, SOL_IPV6, IPV6_TRANSPARENT, 1);
    setIntOption(fd, SOL_IPV6, IPV6_FREEBIND, 1);
  } else {
    setIntOption(fd, SOL_IP, IP_TRANSPARENT, 1);
    setIntOption(fd, SOL_IP, IP_FREEBIND, 1);
  }
}
