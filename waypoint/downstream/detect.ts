/** What runs inside a tunnel, by its first bytes. */
export type Detected = 'http1' | 'http2' | 'tcp';

const HTTP2_PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
/** Longer than any method that is in use. */
const MAX_METHOD = 24;
const SPACE = 0x20;

/**
 * HTTP/2 by its preface, HTTP/1 by a token and a space; undefined while it may become either. Needs at most 25 bytes.
 */
export function detectProtocol(bytes: Buffer): Detected | undefined {
  const length = Math.min(bytes.length, HTTP2_PREFACE.length);
  if (bytes.compare(HTTP2_PREFACE, 0, length, 0, length) === 0)
    return length === HTTP2_PREFACE.length ? 'http2' : undefined;
  for (const [at, byte] of bytes.subarray(0, MAX_METHOD + 1).entries()) {
    if (byte === SPACE) return at === 0 ? 'tcp' : 'http1';
    if (!isTokenByte(byte)) return 'tcp';
  }
  return bytes.length > MAX_METHOD ? 'tcp' : undefined;
}

/** RFC 9110, 5.6.2. */
function isTokenByte(byte: number): boolean {
  return /[!#$%&'*+\-.^_`|~0-9A-Za-z]/.test(String.fromCharCode(byte));
}
