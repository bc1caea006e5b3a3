import { SOL_SOCKET, sys } from './native.ts';

const SO_LINGER = 13;
/** struct linger: on, for no time; and off. */
const ON: Buffer = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);
const OFF: Buffer = Buffer.alloc(8);

/**
 * Whether the last close of a connected TCP socket resets its connection, and drops what has not been sent: also the kernel's own,
 * when the process is killed. It is the socket's, whoever has descriptors of it. Harmless when it is no socket.
 */
export function setAbruptClose(fd: number, isAbrupt: boolean): void {
  sys.setsockopt(fd, SOL_SOCKET, SO_LINGER, isAbrupt ? ON : OFF, OFF.length);
}
