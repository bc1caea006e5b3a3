import type { Field } from '../case.ts';

/** An answer of HTTP/1, as far as it has come. */
export interface Answer {
  readonly status: number;
  readonly headers: readonly Field[];
  readonly body: string;
  readonly trailers: readonly Field[];
  /** False: the connection may not end yet. */
  readonly isComplete: boolean;
  /** Where the next one begins. */
  readonly next: number;
}

/** A proxy sent what is no HTTP/1.1. */
export class MalformedAnswerError extends Error {
  override readonly name = 'MalformedAnswerError';
}

const STATUS_LINE = /^HTTP\/1\.1 (\d{3}) [\t\x20-\x7e\x80-\xff]*$/;
const FIELD_LINE = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*$/;

/**
 * Reads one answer, strictly: RFC 9112, CRLF only. Undefined: its head is not there yet.
 * @param isHead whether the request was HEAD
 * @throws MalformedAnswerError
 */
export function readAnswer(bytes: string, from: number, isHead: boolean): Answer | undefined {
  const headEnd = bytes.indexOf('\r\n\r\n', from);
  if (headEnd < 0) return undefined;
  const [statusLine = '', ...lines] = bytes.slice(from, headEnd).split('\r\n');
  const status = Number(STATUS_LINE.exec(statusLine)?.[1] ?? malformed(`status line ${statusLine}`));
  const head = { status, headers: lines.map(readField) };
  const start = headEnd + 4;
  const lengths = valuesOf(head.headers, 'content-length');
  const codings = valuesOf(head.headers, 'transfer-encoding');
  if (lengths.length + codings.length > 1) malformed(`two framings: ${lines.join(' | ')}`);
  if (isHead || status < 200 || status === 204 || status === 304)
    return { ...head, body: '', trailers: [], isComplete: true, next: start };
  if (codings[0] !== undefined) {
    if (codings[0] !== 'chunked') malformed(`transfer-encoding: ${codings[0]}`);
    return { ...head, ...readChunks(bytes, start) };
  }
  if (lengths[0] === undefined)
    return { ...head, body: bytes.slice(start), trailers: [], isComplete: false, next: bytes.length };
  if (!/^\d+$/.test(lengths[0])) malformed(`content-length: ${lengths[0]}`);
  const next = start + Number(lengths[0]);
  const body = bytes.slice(start, next);
  return { ...head, body, trailers: [], isComplete: bytes.length >= next, next };
}

/** Whether an answer that is not complete ends with the connection, and is whole then. */
export function endsWithConnection({ headers }: Answer): boolean {
  return valuesOf(headers, 'content-length').length + valuesOf(headers, 'transfer-encoding').length === 0;
}

function readChunks(bytes: string, start: number): Omit<Answer, 'status' | 'headers'> {
  let at = start;
  let body = '';
  for (;;) {
    const lineEnd = bytes.indexOf('\r\n', at);
    if (lineEnd < 0) return { body, trailers: [], isComplete: false, next: bytes.length };
    const size =
      /^([0-9a-f]{1,8})$/i.exec(bytes.slice(at, lineEnd))?.[1] ??
      malformed(`chunk ${bytes.slice(at, lineEnd)}`);
    const length = Number.parseInt(size, 16);
    if (length === 0) return { body, ...readTrailers(bytes, lineEnd + 2) };
    body += bytes.slice(lineEnd + 2, lineEnd + 2 + length);
    at = lineEnd + 2 + length + 2;
    if (bytes.length < at) return { body, trailers: [], isComplete: false, next: bytes.length };
    if (bytes.slice(at - 2, at) !== '\r\n') malformed('chunk without its end');
  }
}

function readTrailers(bytes: string, start: number): Omit<Answer, 'status' | 'headers' | 'body'> {
  if (bytes.startsWith('\r\n', start)) return { trailers: [], isComplete: true, next: start + 2 };
  const end = bytes.indexOf('\r\n\r\n', start);
  if (end < 0) return { trailers: [], isComplete: false, next: bytes.length };
  return { trailers: bytes.slice(start, end).split('\r\n').map(readField), isComplete: true, next: end + 4 };
}

function readField(line: string): Field {
  const [, name, value = ''] = FIELD_LINE.exec(line) ?? [];
  return [name?.toLowerCase() ?? malformed(`header ${JSON.stringify(line)}`), value];
}

function valuesOf(fields: readonly Field[], name: string): readonly string[] {
  return fields.filter(([own]) => own === name).map(([, value]) => value.toLowerCase());
}

function malformed(what: string): never {
  throw new MalformedAnswerError(`no HTTP/1.1: ${what}`);
}
