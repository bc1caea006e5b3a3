import type { Duplex, Readable } from 'node:stream';
import { formatIdentity } from '#certs/identity.ts';
import type { Caller, HeaderList } from '../exchange.ts';

/** What things cost beside the bytes that wait in them; measured, and rounded up. */

/** A caller's session: TLS, HTTP/2, its socket. */
export const SESSION_BYTES: number = 96 * 1024;
/** A CONNECT stream. */
export const STREAM_BYTES: number = 4 * 1024;
/** HTTP/1.1 in a tunnel. */
export const HTTP1_BYTES: number = 16 * 1024;
/** HTTP/2 in a tunnel, with its tables of headers. */
export const HTTP2_BYTES: number = 48 * 1024;
/** A request with its try, without its headers. */
export const REQUEST_BYTES: number = 16 * 1024;
/** A spliced connection. */
export const CONNECTION_BYTES: number = 8 * 1024;
/** A piece of data: the object that stands for it. */
const PIECE_BYTES = 192;

/** For whom memory is held: a pod, by what its certificate says and where it calls from. */
export function ownerOf({ identity, address }: Pick<Caller, 'identity' | 'address'>): string {
  return `${formatIdentity(identity)} ${address.ip}`;
}

/** Characters of a list of headers. */
export function sizeOfHeaders(headers: HeaderList): number {
  let size = 0;
  for (const text of headers) size += text.length;
  return size;
}

/** What pieces cost that wait in a list. */
export function heldInPieces(bytes: number, pieces: number): number {
  return bytes + pieces * PIECE_BYTES;
}

/** What waits to be read from a stream. Of how many pieces it is only Node.js itself knows. */
export function heldForReader(stream: Readable): number {
  const { _readableState: state } = stream as unknown as {
    readonly _readableState?: { readonly buffer?: ArrayLike<unknown>; readonly bufferIndex?: number };
  };
  const pieces = (state?.buffer?.length ?? 0) - (state?.bufferIndex ?? 0);
  return heldInPieces(stream.readableLength, pieces);
}

/** What waits in a stream, either way. */
export function heldInStream(stream: Duplex): number {
  return heldForReader(stream) + stream.writableLength;
}
