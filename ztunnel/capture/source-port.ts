import type { Ip } from '#api/address.ts';
import {
  lastErrno,
  NativeError,
  SOCKADDR_SIZE,
  SOL_IP,
  SOL_SOCKET,
  setIntOption,
  sys,
  writeSockaddr,
} from './native.ts';

/** Source addresses and ports of sockets that dial an application. */

const SO_REUSEADDR = 2;
const IP_BIND_ADDRESS_NO_PORT = 24;

/** Odd ports of the usual ephemeral range, 32768 to 60999. */
const SOURCE_PORT_BASE = 32769;
const SOURCE_PORT_COUNT = 14116;
const FREE_PORT_ATTEMPTS = 4;
let nextIndex = Math.floor(Math.random() * SOURCE_PORT_COUNT);

const address = Buffer.alloc(SOCKADDR_SIZE[6]);

/**
 * The next of the odd ports, in turn. Callers' kernels give connect(2) even ones until those run out, so these are not in
 * the way of theirs.
 */
export function nextSourcePort(): number {
  const port = SOURCE_PORT_BASE + 2 * nextIndex;
  nextIndex = (nextIndex + 1) % SOURCE_PORT_COUNT;
  return port;
}

/** Binds to an address and port. @throws NativeError */
export function bindTo(fd: number, ip: Ip, port: number): void {
  const result = sys.bind(fd, address, writeSockaddr(address, ip, port));
  if (result < 0) throw new NativeError(`bind to ${ip} port ${port}`, lastErrno());
}

/**
 * Binds to an address alone. The port is found when the socket is connected, and has to be free for that destination
 * only. @throws NativeError
 */
export function bindAddress(fd: number, ip: Ip): void {
  setIntOption(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1); // for IPv6 as well
  bindTo(fd, ip, 0);
}

/**
 * Binds to a caller's address and a port of our choosing.
 *
 * Left to the kernel, the port could be one that the same caller uses itself, in a direct connection to the same
 * application: the kernel only looks for a clash with sockets of this end. Our SYN would then land in that connection. So
 * ports are taken in turn of those that callers use last. A bind without SO_REUSEADDR fails on a port that a live or
 * dying connection from that address has; if several in a row are taken, one in TIME_WAIT is taken over, which the kernel
 * allows where both ends use timestamps.
 * @throws NativeError
 */
export function bindForeignSource(fd: number, ip: Ip): void {
  const size = writeSockaddr(address, ip, 0);
  for (let attempt = 0; attempt < FREE_PORT_ATTEMPTS; attempt++) {
    if (bindNextPort(fd, size)) {
      setIntOption(fd, SOL_SOCKET, SO_REUSEADDR, 1); // for whoever comes after its TIME_WAIT
      return;
    }
  }
  setIntOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (bindNextPort(fd, size)) return;
  bindAddress(fd, ip);
}

/** Tries the next port with the source address that `address` holds; false when it is in use. */
function bindNextPort(fd: number, size: number): boolean {
  address.writeUInt16BE(nextSourcePort(), 2);
  if (sys.bind(fd, address, size) === 0) return true;
  const error = new NativeError('bind to a source address', lastErrno());
  if (error.code === 'EADDRINUSE') return false;
  throw error;
}
