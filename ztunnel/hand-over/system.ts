import { closeDescriptor } from '../capture/in-pod-sockets.ts';
import { check, pollAsync, SOL_SOCKET, sys } from '../capture/native.ts';
import { socketCookie } from '../capture/tcp-socket.ts';
import { openProcess, takeDescriptor } from './descriptors.ts';

/** What of the kernel two processes need between which a connection changes hands. Calls throw NativeError. */
export interface HandOverSystem {
  /** The number by which the kernel knows a socket. */
  readonly cookie: (fd: number) => bigint;
  readonly close: (fd: number) => void;
  /** A descriptor that stands for a process. */
  readonly openProcess: (pid: number) => number;
  /** A duplicate of what that process has open. */
  readonly take: (pidfd: number, fd: number) => number;
  /**
   * Writes on a socket itself, where both processes see it at once, whether it is on offer: nobody moves its bytes. Who has offered
   * it takes that back before it goes on with it, so that whoever finds the process gone knows how it left it.
   */
  readonly setOffered: (fd: number, isOffered: boolean) => void;
  readonly isOffered: (fd: number) => boolean;
  /** Says whether the process is gone: as soon as it is, or within a second. */
  readonly whenGone: (pidfd: number, done: (isGone: boolean) => void) => void;
}

/** Of what blocks for reading: that is nothing of ours, so it is free to say something else. */
const SO_RCVTIMEO = 20;
/** From the end of what a process has open to its own. */
const DEATH_MS = 1_000;
const POLLIN = 1;

export const SYSTEM: HandOverSystem = {
  ...{ cookie: socketCookie, close: closeDescriptor, openProcess, take: takeDescriptor },
  setOffered: (fd, isOffered) => {
    const time = Buffer.alloc(16); // struct timeval
    time.writeInt8(isOffered ? 1 : 0);
    check('setsockopt SO_RCVTIMEO', sys.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, time, time.length));
  },
  isOffered: (fd) => {
    const [time, size] = [Buffer.alloc(16), Buffer.alloc(4)];
    size.writeUInt32LE(time.length);
    check('getsockopt SO_RCVTIMEO', sys.getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, time, size));
    return time.readInt8() === 1;
  },
  whenGone: (pidfd, done) => {
    const entry = Buffer.alloc(8); // struct pollfd
    entry.writeInt32LE(pidfd, 0);
    entry.writeInt16LE(POLLIN, 4);
    pollAsync(entry, 1, DEATH_MS, () => done((entry.readInt16LE(6) & POLLIN) !== 0));
  },
};
