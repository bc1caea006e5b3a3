import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';

/** Reads all of a socket, and has a SHA-256 of it when it has ended; how much has come so far. */
export function reader(socket: Socket): { readonly hash: Promise<string>; readonly size: () => number } {
  const hash = createHash('sha256');
  let size = 0;
  socket.on('data', (bytes: Buffer) => {
    size += bytes.length;
    hash.update(bytes);
  });
  return { hash: once(socket, 'end').then(() => hash.digest('hex')), size: () => size };
}

/** The same of bytes. */
export function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
