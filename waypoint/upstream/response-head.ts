import type { HeaderList } from '../exchange.ts';

/** What came is not HTTP/1.1, or more of it than is taken. */
export class ResponseError extends Error {
  override readonly name = 'ResponseError';
}

export interface ResponseHead {
  readonly status: number;
  /** All but those of the connection (RFC 9110, 7.6.1). */
  readonly headers: HeaderList;
  /** Whether another request may follow on this connection. */
  readonly keepsAlive: boolean;
  /** Of `keep-alive: timeout=…`, in ms. */
  readonly keepAliveMs: number | undefined;
  /** Of the protocol that is changed to. */
  readonly upgrade: string | undefined;
}

/** As Envoy has it. */
const MAX_FIELDS = 100;

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/;
/** The blanks around a value are taken off by hand: an expression with all three takes the cube of a line's length to find that it fails. */
const FIELD = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)$/;
const KEEP_ALIVE_TIMEOUT = /(?:^|[,\s])timeout=(\d{1,6})(?:$|[,\s])/i;

/** A head, and how long what follows is: neither means until the connection ends. */
export interface ParsedHead {
  readonly head: ResponseHead;
  readonly length: number | undefined;
  readonly isChunked: boolean;
}

/**
 * Parses a head without its empty line.
 * @throws ResponseError
 */
export function parseHead(text: string): ParsedHead {
  const lines = text.split('\r\n');
  const [, minor, digits] = STATUS_LINE.exec(lines[0] ?? '') ?? [];
  if (digits === undefined) throw new ResponseError('not a status line');
  const fields = parseFields(lines, 1);
  const framing = framingOf(fields, minor === '0');
  const { connection } = framing;
  const keepsAlive = minor === '1' ? !connection.includes('close') : connection.includes('keep-alive');
  return {
    head: {
      status: Number(digits),
      headers: withoutConnection(fields, connection),
      keepsAlive,
      keepAliveMs: framing.keepAliveMs,
      upgrade: connection.includes('upgrade') ? framing.upgrade : undefined,
    },
    length: framing.length,
    isChunked: framing.isChunked,
  };
}

/**
 * Parses header fields, from a line on.
 * @throws ResponseError
 */
export function parseFields(lines: readonly string[], first: number): string[] {
  if (lines.length - first > MAX_FIELDS) throw new ResponseError('the answer has too many headers');
  const fields: string[] = [];
  for (let index = first; index < lines.length; index++) {
    const [, name, value] = FIELD.exec(lines[index] ?? '') ?? [];
    if (name === undefined || value === undefined) throw new ResponseError('a header is malformed');
    fields.push(name.toLowerCase(), withoutBlanks(value));
  }
  return fields;
}

/** Without spaces and tabs around it (RFC 9110, 5.5). */
function withoutBlanks(value: string): string {
  let start = 0;
  let end = value.length;
  while (start < end && isBlank(value.charCodeAt(start))) start += 1;
  while (end > start && isBlank(value.charCodeAt(end - 1))) end -= 1;
  return value.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

interface Framing {
  readonly connection: readonly string[];
  readonly length: number | undefined;
  readonly isChunked: boolean;
  readonly keepAliveMs: number | undefined;
  readonly upgrade: string | undefined;
}

function framingOf(fields: HeaderList, isOld: boolean): Framing {
  let connection: string[] = NOTHING;
  let length: number | undefined;
  let isChunked = false;
  let keepAliveMs: number | undefined;
  let upgrade: string | undefined;
  for (let index = 0; index < fields.length; index += 2) {
    const value = fields[index + 1] ?? '';
    switch (fields[index]) {
      case 'connection':
        connection = [
          ...connection,
          ...value
            .toLowerCase()
            .split(',')
            .map((each) => each.trim()),
        ];
        break;
      case 'content-length':
        if (length !== undefined || !/^\d{1,15}$/.test(value)) throw new ResponseError('a malformed length');
        length = Number(value);
        break;
      case 'transfer-encoding':
        if (isChunked || isOld || value.toLowerCase() !== 'chunked')
          throw new ResponseError('an encoding that is not known');
        isChunked = true;
        break;
      case 'keep-alive':
        keepAliveMs = Number(KEEP_ALIVE_TIMEOUT.exec(value)?.[1] ?? Number.NaN) * 1000;
        if (Number.isNaN(keepAliveMs)) keepAliveMs = undefined;
        break;
      case 'upgrade':
        upgrade = value.toLowerCase();
    }
  }
  if (isChunked && length !== undefined) throw new ResponseError('both a length and chunks');
  return { connection, length, isChunked, keepAliveMs, upgrade };
}

const NOTHING: string[] = [];
/** RFC 9110, 7.6.1. `trailer` stays: it is of the message. */
const OF_CONNECTION = /^(connection|keep-alive|proxy-connection|transfer-encoding|upgrade|te)$/;

/** Headers without those of the connection. */
export function withoutConnection(fields: HeaderList, named: readonly string[] = NOTHING): HeaderList {
  const kept: string[] = [];
  for (let index = 0; index < fields.length; index += 2) {
    const name = fields[index] ?? '';
    if (OF_CONNECTION.test(name) || (named.length > 0 && named.includes(name))) continue;
    kept.push(name, fields[index + 1] ?? '');
  }
  return kept;
}
