import type { HeaderList } from '../exchange.ts';
import type { UpstreamRequest } from './attempt.ts';

const CRLF = '\r\n';
/** Methods of which a body is expected: without one they say so. RFC 9110, 8.6. */
const EXPECTS_BODY = /^(POST|PUT|PATCH)$/;
/** What would end a line early, or is no text. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
const FORBIDDEN = /[\x00-\x08\x0a-\x1f\x7f\u0100-\uffff]/;

/**
 * Head of a request in HTTP/1.1.
 * @throws TypeError for text that does not fit into a line: whoever lets such in has to refuse it
 */
export function formatHead(request: UpstreamRequest): { readonly head: string; readonly isChunked: boolean } {
  const { method, target, authority, headers, hasBody, upgrade } = request;
  let head = `${method} ${checked(target)} HTTP/1.1\r\nhost: ${checked(authority)}\r\n`;
  let hasLength = false;
  let connection = upgrade === undefined ? '' : 'Upgrade';
  for (let index = 0; index < headers.length; index += 2) {
    const name = headers[index] ?? '';
    if (name === 'content-length') hasLength = true;
    // It is between the two ends of a connection, and has to say so: RFC 9110, 10.1.4.
    else if (name === 'te') connection = connection === '' ? 'TE' : `TE, ${connection}`;
    head += `${name}: ${checked(headers[index + 1] ?? '')}\r\n`;
  }
  const isChunked = hasBody && !hasLength;
  if (isChunked) head += 'transfer-encoding: chunked\r\n';
  else if (!hasBody && !hasLength && EXPECTS_BODY.test(method)) head += 'content-length: 0\r\n';
  if (connection !== '') head += `connection: ${connection}\r\n`;
  if (upgrade !== undefined) head += `upgrade: ${upgrade}\r\n`;
  return { head: head + CRLF, isChunked };
}

/** A piece of a body. Empty ones would end it. */
export function formatChunk(chunk: Buffer): Buffer {
  if (chunk.length === 0) return chunk;
  const size = `${chunk.length.toString(16)}\r\n`;
  const framed = Buffer.allocUnsafe(size.length + chunk.length + 2);
  framed.write(size, 0, 'latin1');
  chunk.copy(framed, size.length);
  framed.write(CRLF, size.length + chunk.length, 'latin1');
  return framed;
}

/** The end of a body, with its trailers. */
export function formatLastChunk(trailers: HeaderList): Buffer {
  let text = '0\r\n';
  for (let index = 0; index < trailers.length; index += 2)
    text += `${trailers[index] ?? ''}: ${checked(trailers[index + 1] ?? '')}\r\n`;
  return Buffer.from(text + CRLF, 'latin1');
}

function checked(text: string): string {
  if (FORBIDDEN.test(text)) throw new TypeError('text that does not fit into a header');
  return text;
}
