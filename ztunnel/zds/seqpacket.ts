import { fchmodSync, unlinkSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import koffi from 'koffi';
import {
  AF_UNIX,
  check,
  hasCode,
  lastErrno,
  NativeError,
  openDescriptor,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_SEQPACKET,
  SOL_SOCKET,
  sys,
} from '../capture/native.ts';
import { MAX_MESSAGE_BYTES, ZdsError } from './messages.ts';

/**
 * Unix sockets that keep packets apart (SEQPACKET) and carry descriptors (SCM_RIGHTS), which Node.js's `net` does not
 * know. Nothing here blocks; waiting is readiness.ts's.
 */

/** One packet. The receiver owns the descriptors. */
export interface Packet {
  readonly bytes: Uint8Array;
  readonly descriptors: readonly number[];
  /** It was longer than {@link MAX_MESSAGE_BYTES}, or carried more descriptors than anyone may send. */
  readonly truncated: boolean;
}

const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_TRUNC = 0x20;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
/** Longest path of a Unix socket, without the closing zero. */
const MAX_PATH_BYTES = 107;
const BACKLOG = 16;

/**
 * A listening socket at a path, mode 0600. A file that a dead listener left there is replaced.
 * @throws ZdsError `address` when another process listens there, or the path cannot be used
 */
export function listenAt(path: string): number {
  if (isServed(path))
    throw new ZdsError(`${path} is served by another node agent; stop that one first`, { code: 'address' });
  const fd = seqpacketSocket();
  try {
    rmSocket(path);
    fchmodSync(fd, 0o600); // bind(2) gives the file this mode from the start
    withAddress(path, (address) => check(`bind to ${path}`, sys.bind(fd, address, address.length)));
    check('listen', sys.listen(fd, BACKLOG));
    return fd;
  } catch (error) {
    sys.close(fd);
    throw error;
  }
}

/** A connected socket. @throws NativeError (ENOENT, ECONNREFUSED: nobody is there; EAGAIN: its queue is full) */
export function connectTo(path: string): number {
  const fd = seqpacketSocket();
  try {
    withAddress(path, (address) => check(`connect to ${path}`, sys.connect(fd, address, address.length)));
    return fd;
  } catch (error) {
    sys.close(fd);
    throw error;
  }
}

/** The next connection of a listener; undefined when there is none yet. @throws NativeError */
export function accept(listener: number): number | undefined {
  const fd = sys.accept(listener, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) return fd;
  const error = new NativeError('accept', lastErrno());
  if (error.code === 'EAGAIN' || error.code === 'ECONNABORTED') return undefined;
  throw error;
}

/** Sends one packet, and a descriptor with it, which stays the caller's. @throws NativeError */
export function send(fd: number, bytes: Uint8Array, descriptor?: number): void {
  if (bytes.length > MAX_MESSAGE_BYTES) throw new TypeError(`a packet of ${bytes.length} bytes`);
  data.set(bytes);
  if (descriptor !== undefined) writeRights(descriptor);
  prepareHeader(bytes.length, descriptor === undefined ? 0 : CMSG_HEADER_SIZE + 8);
  check('send', sys.sendmsg(fd, header, MSG_NOSIGNAL));
}

/** The next packet, `end` when the other side is gone, undefined when there is none yet. @throws NativeError */
export function receive(fd: number): Packet | 'end' | undefined {
  prepareHeader(MAX_MESSAGE_BYTES, CONTROL_SIZE);
  const length = Number(sys.recvmsg(fd, header, MSG_CMSG_CLOEXEC));
  if (length < 0) {
    const error = new NativeError('receive', lastErrno());
    if (error.code === 'EAGAIN') return undefined;
    if (error.code === 'ECONNRESET') return 'end';
    throw error;
  }
  const descriptors = readRights(Number(header.readBigUInt64LE(40)));
  const truncated = (header.readInt32LE(48) & (MSG_TRUNC | MSG_CTRUNC)) !== 0;
  // An empty packet is no message of the protocol, so it can stand for the end that it looks like.
  if (length === 0 && descriptors.length === 0) return 'end';
  return { bytes: Uint8Array.from(data.subarray(0, length)), descriptors, truncated };
}

/** Closes what came with a packet and is not wanted. */
export function closeDescriptors(packet: Packet): void {
  for (const fd of packet.descriptors) sys.close(fd);
}

/** Takes away a socket's file, if there is one. */
export function rmSocket(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
  }
}

function isServed(path: string): boolean {
  try {
    sys.close(connectTo(path));
    return true;
  } catch (error) {
    if (hasCode(error, 'EAGAIN')) return true;
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ECONNREFUSED')) return false;
    throw new ZdsError(`${path} cannot be used as a socket: ${String(error)}`, {
      code: 'address',
      cause: error,
    });
  }
}

function seqpacketSocket(): number {
  return check('socket', sys.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

/** Calls with a struct sockaddr_un; a path that is too long for one is reached through its folder's descriptor. */
function withAddress(path: string, work: (address: Buffer) => void): void {
  if (Buffer.byteLength(path) <= MAX_PATH_BYTES) {
    work(sockaddrOf(path));
    return;
  }
  const folder = openDescriptor(dirname(path));
  try {
    work(sockaddrOf(`/proc/self/fd/${folder}/${basename(path)}`));
  } finally {
    sys.close(folder);
  }
}

function sockaddrOf(path: string): Buffer {
  const address = Buffer.alloc(2 + MAX_PATH_BYTES + 1);
  address.writeUInt16LE(AF_UNIX, 0);
  if (Buffer.byteLength(path) > MAX_PATH_BYTES)
    throw new ZdsError(`${path} is too long for the name of a socket`, { code: 'address' });
  address.write(path, 2);
  return address;
}

const CMSG_HEADER_SIZE = 16;
/** Room for four descriptors, so that one too many is seen and closed. */
const CONTROL_SIZE = CMSG_HEADER_SIZE + 16;

/*
 * struct msghdr, the one struct iovec that it points to, and what that and msg_control point to: outside of the heap, so
 * that their addresses never change. One set is enough, since sending and receiving are synchronous.
 */
const header = Buffer.from(new ArrayBuffer(56));
const vector = Buffer.from(new ArrayBuffer(16));
const data = Buffer.from(new ArrayBuffer(MAX_MESSAGE_BYTES));
const control = Buffer.from(new ArrayBuffer(CONTROL_SIZE));

function prepareHeader(dataLength: number, controlLength: number): void {
  vector.writeBigUInt64LE(addressOf(data), 0);
  vector.writeBigUInt64LE(BigInt(dataLength), 8);
  header.fill(0);
  header.writeBigUInt64LE(addressOf(vector), 16);
  header.writeBigUInt64LE(1n, 24);
  if (controlLength > 0) header.writeBigUInt64LE(addressOf(control), 32);
  header.writeBigUInt64LE(BigInt(controlLength), 40);
}

/** struct cmsghdr with one descriptor. */
function writeRights(descriptor: number): void {
  control.fill(0);
  control.writeBigUInt64LE(BigInt(CMSG_HEADER_SIZE + 4), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  control.writeInt32LE(descriptor, CMSG_HEADER_SIZE);
}

function readRights(controlLength: number): readonly number[] {
  if (controlLength < CMSG_HEADER_SIZE || control.readInt32LE(12) !== SCM_RIGHTS) return [];
  const end = Math.min(controlLength, Number(control.readBigUInt64LE(0)));
  const descriptors: number[] = [];
  for (let at = CMSG_HEADER_SIZE; at + 4 <= end; at += 4) descriptors.push(control.readInt32LE(at));
  return descriptors;
}

function addressOf(buffer: Buffer): bigint {
  return BigInt(koffi.address(buffer));
}
