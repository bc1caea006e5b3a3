import { check, SOL_SOCKET, setIntOption, sys } from './native.ts';

/** What Node.js does not ask the kernel about a TCP socket, by its descriptor. */

const SO_SNDBUFFORCE = 32;
const SO_COOKIE = 57;
const IPPROTO_TCP = 6;
const TCP_INFO = 11;
/** TCP_CLOSE of enum bpf_tcp_state in linux/bpf.h. */
const CLOSED = 7;

/** The number by which the kernel knows the socket; no other ever gets it. @throws NativeError */
export function socketCookie(fd: number): bigint {
  return readOption(fd, SOL_SOCKET, SO_COOKIE, 8).readBigUInt64LE();
}

/** Fixes what may wait to be sent, beyond what the system allows others; the kernel takes twice as much. @throws NativeError */
export function forceSendBuffer(fd: number, bytes: number): void {
  setIntOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, bytes);
}

/** Whether the connection is over both ways: after a reset, or after both FINs. @throws NativeError */
export function isTcpClosed(fd: number): boolean {
  // struct tcp_info of linux/tcp.h begins with the state.
  return readOption(fd, IPPROTO_TCP, TCP_INFO, 1).readUInt8() === CLOSED;
}

function readOption(fd: number, level: number, option: number, bytes: number): Buffer {
  const value = Buffer.alloc(bytes);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(bytes);
  check(`getsockopt(${level}, ${option})`, sys.getsockopt(fd, level, option, value, size));
  return value;
}
