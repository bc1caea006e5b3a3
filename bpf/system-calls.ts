import koffi from 'koffi';
import { check, openDescriptor, sys, withinNamespace } from '#ztunnel/capture/native.ts';

/** The system calls that only the loader needs. */

const libc = koffi.load('libc.so.6');
const unshareCall: (flags: number) => number = libc.func('int unshare(int flags)');
const flockCall: (fd: number, operation: number) => number = libc.func('int flock(int fd, int operation)');
const mountCall: (source: string, target: string, type: string, flags: number, options: null) => number =
  libc.func(
    'int mount(const char *source, const char *target, const char *type, ulong flags, const void *options)',
  );
const indexCall: (name: string) => number = libc.func('uint32 if_nametoindex(const char *name)');

const CLONE_NEWNET = 0x40000000;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** Whether the file or directory is locked for us now; the lock goes with the descriptor. */
export function tryLock(fd: number): boolean {
  return flockCall(fd, LOCK_EX | LOCK_NB) === 0;
}

/** Mounts a file system that has no device. @throws NativeError */
export function mountPseudo(type: string, target: string): void {
  check(`mount ${target}`, mountCall(type, target, type, 0, null));
}

/** The number of a network device in that namespace. @throws NativeError ENODEV */
export function deviceIndex(netnsFd: number, device: string): number {
  return withinNamespace(netnsFd, () => {
    const index = indexCall(device);
    return check(`find device ${device}`, index === 0 ? -1 : index);
  });
}

/**
 * A network namespace of nobody's, that ends when its descriptor is closed by the caller. This thread is in it for a
 * moment only.
 * @throws NativeError
 */
export function openThrowAwayNamespace(): number {
  const home = openDescriptor('/proc/thread-self/ns/net');
  try {
    // To enter the namespace that we are in changes nothing, but has us brought back from wherever we are afterwards.
    return withinNamespace(home, () => {
      check('unshare', unshareCall(CLONE_NEWNET));
      return openDescriptor('/proc/thread-self/ns/net');
    });
  } finally {
    sys.close(home);
  }
}
