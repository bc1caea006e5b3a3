/** What the first bytes of a connection say about TLS. */
export type ClientHelloCheck =
  /** It may become a ClientHello yet. */
  | { readonly kind: 'more' }
  | { readonly kind: 'hello'; readonly serverName: string | undefined }
  | { readonly kind: 'not-tls'; readonly reason: string };

const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const SERVER_NAME = 0;
const HOST_NAME = 0;
const RECORD_HEADER = 5;
const MAX_RECORD = 16_384;
/** A ClientHello with post-quantum keys has 1.8 KiB; one larger than this is nobody's. */
export const MAX_CLIENT_HELLO = 65_536;
const HOSTNAME = /^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})$/;

/** Reads the server name (RFC 6066, 3) of a ClientHello that may lie in several records and has perhaps not come whole. */
export function readClientHello(bytes: Buffer): ClientHelloCheck {
  const handshake = handshakeOf(bytes);
  if (typeof handshake === 'string') return { kind: 'not-tls', reason: handshake };
  if (handshake.length >= 1 && handshake[0] !== CLIENT_HELLO) return notTls('no ClientHello');
  if (handshake.length < 4) return more(bytes);
  const length = handshake.readUIntBE(1, 3);
  if (length > MAX_CLIENT_HELLO) return notTls('the ClientHello is too large');
  if (handshake.length < 4 + length) return more(bytes);
  try {
    return { kind: 'hello', serverName: serverNameOf(new Reader(handshake.subarray(4, 4 + length))) };
  } catch (error) {
    if (error instanceof TruncatedError) return notTls('the ClientHello is malformed');
    throw error;
  }
}

function more(bytes: Buffer): ClientHelloCheck {
  return bytes.length > MAX_CLIENT_HELLO ? notTls('the ClientHello is too large') : { kind: 'more' };
}

function notTls(reason: string): ClientHelloCheck {
  return { kind: 'not-tls', reason };
}

/**
 * What has come of the first message of the handshake, taken out of its records; or why it is none. What follows it is not
 * looked at: a client may send early data right after its ClientHello.
 */
function handshakeOf(bytes: Buffer): Buffer | string {
  const pieces: Buffer[] = [];
  let size = 0;
  let wanted = Number.POSITIVE_INFINITY;
  let at = 0;
  while (at < bytes.length && size < wanted) {
    if (bytes[at] !== HANDSHAKE || (bytes.length > at + 1 && bytes[at + 1] !== 3)) return 'no TLS handshake';
    if (bytes.length < at + RECORD_HEADER) break;
    const length = bytes.readUInt16BE(at + 3);
    if (length === 0 || length > MAX_RECORD) return 'no TLS record';
    const piece = bytes.subarray(at + RECORD_HEADER, at + RECORD_HEADER + length);
    pieces.push(piece);
    size += piece.length;
    at += RECORD_HEADER + length;
    if (size >= 4 && size - piece.length < 4) wanted = 4 + Buffer.concat(pieces).readUIntBE(1, 3);
  }
  return pieces.length === 1 && pieces[0] !== undefined ? pieces[0] : Buffer.concat(pieces);
}

/** @throws TruncatedError */
function serverNameOf(hello: Reader): string | undefined {
  hello.take(2 + 32); // version and random
  hello.vector(1); // session
  hello.vector(2); // cipher suites
  hello.vector(1); // compression methods
  if (hello.isAtEnd) return undefined;
  const extensions = hello.vector(2);
  while (!extensions.isAtEnd) {
    const type = extensions.number(2);
    const extension = extensions.vector(2);
    if (type === SERVER_NAME) return hostNameOf(extension.vector(2));
  }
  return undefined;
}

/** A name that cannot be one counts as none. */
function hostNameOf(names: Reader): string | undefined {
  while (!names.isAtEnd) {
    const type = names.number(1);
    const name = names.vector(2).rest().toString('latin1');
    if (type === HOST_NAME) return HOSTNAME.test(name) ? name.toLowerCase().replace(/\.$/, '') : undefined;
  }
  return undefined;
}

class TruncatedError extends Error {}

/** Reads numbers and length-prefixed vectors. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new TruncatedError();
    const piece = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return piece;
  }

  number(bytes: 1 | 2): number {
    return this.take(bytes).readUIntBE(0, bytes);
  }

  vector(lengthBytes: 1 | 2): Reader {
    return new Reader(this.take(this.number(lengthBytes)));
  }

  rest(): Buffer {
    return this.take(this.#bytes.length - this.#at);
  }
}
