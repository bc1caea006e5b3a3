import { check, pollAsync, sys } from '../capture/native.ts';

/**
 * Tells when a descriptor can be read, for sockets that Node.js does not take. All waits of a thread share one poll(2) in
 * one thread of libuv's pool, which runs only while somebody waits, so that it keeps no process alive by itself.
 */

const POLLIN = 1;
const EFD_NONBLOCK_CLOEXEC = 0o2004000;
/** struct pollfd. */
const ENTRY_SIZE = 8;
/** How long one poll(2) may take: an exiting process waits for it. */
const POLL_MS = 250;
const ONE = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);

const waiting = new Map<number, () => void>();
let wakeFd: number | undefined;
let polling = false;

/**
 * Resolves when the descriptor can be read, is at its end or broken, or has been forgotten; sometimes for no reason. One
 * wait a descriptor at a time.
 */
export function readable(fd: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (waiting.has(fd)) throw new TypeError(`somebody waits for descriptor ${fd} already`);
  waiting.set(fd, resolve);
  wake();
  return promise;
}

/** Ends a wait; to be called before the descriptor is closed. */
export function forget(fd: number): void {
  end(fd);
  wake();
}

function end(fd: number): void {
  const resolve = waiting.get(fd);
  waiting.delete(fd);
  resolve?.();
}

function wake(): void {
  if (polling && wakeFd !== undefined) sys.write(wakeFd, ONE, ONE.length);
  else poll();
}

function poll(): void {
  polling = waiting.size > 0;
  if (!polling) return;
  wakeFd ??= check('eventfd', sys.eventfd(0, EFD_NONBLOCK_CLOEXEC));
  const fds = [wakeFd, ...waiting.keys()];
  const entries = Buffer.alloc(fds.length * ENTRY_SIZE);
  fds.forEach((fd, index) => {
    entries.writeInt32LE(fd, index * ENTRY_SIZE);
    entries.writeInt16LE(POLLIN, index * ENTRY_SIZE + 4);
  });
  pollAsync(entries, fds.length, POLL_MS, () => {
    resolveReady(entries);
    poll();
  });
}

function resolveReady(entries: Buffer): void {
  for (let at = 0; at < entries.length; at += ENTRY_SIZE) {
    const fd = entries.readInt32LE(at);
    if (entries.readInt16LE(at + 6) === 0) continue;
    if (fd === wakeFd) sys.read(fd, Buffer.alloc(8), 8);
    else end(fd);
  }
}
