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
  lastErrno,
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
  writeSockaddr,
} from './native.ts';

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
const IP_BIND_ADDRESS_NO_PORT = 24;
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

export interface ListenOptions {
  /** `::` takes IPv4 as well. */
  readonly ip: Ip;
  readonly port: number;
  /** Whether it may accept connections to addresses that are not the namespace's own. */
  readonly transparent: boolean;
  readonly backlog: number;
}

/**
 * A listening, non-blocking, marked TCP socket for `server.listen({ fd })`. SO_REUSEPORT is set, so that each worker, and
 * a second ztunnel during an upgrade, can have one of its own on the same port.
 * @throws NativeError
 */
export function listenInNamespace(netnsFd: number | undefined, options: ListenOptions): number {
  const family = familyOf(options.ip);
  return makeSocket(netnsFd, family, SOCK_STREAM, (fd) => {
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
export function bindUdp(netnsFd: number | undefined, address: HostPort): number {
  const family = familyOf(address.ip);
  return makeSocket(netnsFd, family, SOCK_DGRAM, (fd) => {
    if (address.port !== 0) setIntOption(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (family === 6) setIntOption(fd, SOL_IPV6, IPV6_V6ONLY, 1);
    bindTo(fd, address.ip, address.port);
  });
}

export interface DialOptions {
  readonly family: 4 | 6;
  /** Source address, also one that the namespace does not own (a caller's, for its application). */
  readonly sourceIp?: Ip;
}

/**
 * An unconnected, non-blocking, marked TCP socket, for `new net.Socket({ fd, … })` and, in the same tick, its `connect`,
 * which then reports real errors.
 *
 * With a source address it is bound transparently, to a port that is chosen here; see {@link bindSource}. Should that
 * `connect` fail with EADDRNOTAVAIL, the port was taken for this very destination after all: dial again.
 * @throws NativeError
 */
export function dialSocket(netnsFd: number | undefined, options: DialOptions): number {
  const { family, sourceIp } = options;
  return makeSocket(netnsFd, family, SOCK_STREAM, (fd) => {
    if (sourceIp === undefined) return;
    setTransparent(fd, family);
    bindSource(fd, sourceIp);
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

function bindTo(fd: number, ip: Ip, port: number): void {
  const result = sys.bind(fd, address, writeSockaddr(address, ip, port));
  if (result < 0) throw new NativeError(`bind to ${ip} port ${port}`, lastErrno());
}

/** Odd ports of the usual ephemeral range, 32768 to 60999. */
const SOURCE_PORT_BASE = 32769;
const SOURCE_PORT_COUNT = 14116;
const FREE_PORT_ATTEMPTS = 4;
let nextSourcePort = Math.floor(Math.random() * SOURCE_PORT_COUNT);

/**
 * Binds to a caller's address and a port of our choosing.
 *
 * Left to the kernel, the port could be one that the same caller uses itself, in a direct connection to the same
 * application: the kernel only looks for a clash with sockets of this end. Our SYN would then land in that connection.
 * Callers' kernels give connect(2) even ports until those run out, so ours are odd. They are taken in turn: a bind
 * without SO_REUSEADDR fails on a port that a live or dying connection from that address has; if several in a row are
 * taken, one in TIME_WAIT is taken over, which the kernel allows where both ends use timestamps.
 */
function bindSource(fd: number, ip: Ip): void {
  const size = writeSockaddr(address, ip, 0);
  for (let attempt = 0; attempt < FREE_PORT_ATTEMPTS; attempt++) {
    if (bindNextPort(fd, size)) {
      setIntOption(fd, SOL_SOCKET, SO_REUSEADDR, 1); // for whoever comes after its TIME_WAIT
      return;
    }
  }
  setIntOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (bindNextPort(fd, size)) return;
  setIntOption(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  bindTo(fd, ip, 0);
}

/** Tries the next port with the source address that `address` holds; false when it is in use. */
function bindNextPort(fd: number, size: number): boolean {
  address.writeUInt16BE(SOURCE_PORT_BASE + 2 * nextSourcePort, 2);
  nextSourcePort = (nextSourcePort + 1) % SOURCE_PORT_COUNT;
  if (sys.bind(fd, address, size) === 0) return true;
  const errno = lastErrno();
  const error = new NativeError('bind to a source address', errno);
  if (error.code === 'EADDRINUSE') return false;
  throw error;
}
