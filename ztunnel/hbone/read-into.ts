import { Socket } from 'node:net';

/**
 * Has a socket read into one buffer over and over, instead of into a new one each time: `onread` of `net.Socket`, which
 * can be chosen only where a socket is constructed, for sockets that others construct (a server's, and TLS, where Node.js
 * passes it over). At gigabits a second, new buffers cost more in garbage collection than encryption does.
 *
 * @param onBytes gets a view that is good for the length of the call
 * @returns false if this Node.js cannot do it, and nothing was done
 */
export function readInto(socket: Socket, buffer: Buffer, onBytes: (bytes: Buffer) => void): boolean {
  const { _handle: handle } = socket as Socket & { readonly _handle?: UserBufferHandle | null };
  if (KEYS === undefined || typeof handle?.useUserBuffer !== 'function') return false;
  handle.useUserBuffer(buffer);
  Object.assign(socket, {
    [KEYS.buffer]: buffer,
    [KEYS.callback]: (size: number): true => {
      onBytes(buffer.subarray(0, size));
      return true;
    },
  });
  socket.resume();
  // What came before this.
  for (let early: unknown = socket.read(); early instanceof Buffer; early = socket.read()) onBytes(early);
  return true;
}

interface UserBufferHandle {
  readonly useUserBuffer?: (buffer: Buffer) => void;
}

/** Where a socket keeps its `onread`. Undefined when Node.js has come to do it another way. */
const KEYS: { readonly buffer: symbol; readonly callback: symbol } | undefined = findKeys();

function findKeys(): { readonly buffer: symbol; readonly callback: symbol } | undefined {
  const symbols = Object.getOwnPropertySymbols(new Socket());
  const buffer = symbols.find(({ description }) => description === 'kBuffer');
  const callback = symbols.find(({ description }) => description === 'kBufferCb');
  return buffer === undefined || callback === undefined ? undefined : { buffer, callback };
}
