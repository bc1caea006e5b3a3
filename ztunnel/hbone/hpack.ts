import { Http2Error } from './error.ts';
import { decodeHuffman, type Field, STATIC_TABLE } from './hpack-tables.ts';

/** What a field costs in a table and in a header list beside its text: RFC 7541, 4.1. */
const FIELD_OVERHEAD = 32;
/** The table size that both ends start with, and that we keep. */
const TABLE_SIZE = 4096;

const STATIC_INDEX: ReadonlyMap<string, number> = new Map(
  STATIC_TABLE.map(([name], index): [string, number] => [name, index + 1]).reverse(),
);

/**
 * Encodes a header list, names in lower case, text in Latin-1. Nothing is indexed and nothing Huffman coded: CONNECT headers
 * are small, rarely repeat, and go through once a connection. Each block says that its dynamic table is
 * empty, so that it may follow any change of the peer's settings.
 */
export function encodeHeaders(fields: readonly Field[]): Buffer {
  let size = 1;
  for (const [name, value] of fields) size += name.length + value.length + 12;
  const block = Buffer.allocUnsafe(size);
  block[0] = 0x20;
  let at = 1;
  for (const [name, value] of fields) {
    if (name === ':status' && value === '200') {
      block[at++] = 0x88;
      continue;
    }
    const index = STATIC_INDEX.get(name) ?? 0;
    at = writeInteger(block, at, 0x00, 4, index);
    if (index === 0) at = writeText(block, at, name);
    at = writeText(block, at, value);
  }
  return block.subarray(0, at);
}

function writeText(block: Buffer, at: number, text: string): number {
  const start = writeInteger(block, at, 0x00, 7, text.length);
  return start + block.write(text, start, 'latin1');
}

function writeInteger(block: Buffer, at: number, pattern: number, prefixBits: number, value: number): number {
  const most = (1 << prefixBits) - 1;
  if (value < most) {
    block[at] = pattern | value;
    return at + 1;
  }
  block[at++] = pattern | most;
  let rest = value - most;
  for (; rest >= 0x80; rest >>>= 7) block[at++] = (rest & 0x7f) | 0x80;
  block[at] = rest;
  return at + 1;
}

/** Decodes the header blocks of one connection, in their order: the blocks share a table. */
export class HpackDecoder {
  readonly #maxListBytes: number;
  /** The newest entry is the last. */
  readonly #table: Field[] = [];
  #tableBytes = 0;
  #tableLimit = TABLE_SIZE;
  #block: Buffer = Buffer.alloc(0);
  #at = 0;

  /** @param maxListBytes of a decoded header list, counted as SETTINGS_MAX_HEADER_LIST_SIZE is. */
  constructor(maxListBytes: number) {
    this.#maxListBytes = maxListBytes;
  }

  /** @throws Http2Error COMPRESSION_ERROR, ENHANCE_YOUR_CALM for a list that is too large; the connection is lost. */
  decode(block: Buffer): readonly Field[] {
    this.#block = block;
    this.#at = 0;
    const fields: Field[] = [];
    let listBytes = 0;
    while (this.#at < block.length) {
      const field = this.#readField(fields.length === 0);
      if (field === undefined) continue;
      listBytes += costOf(field);
      if (listBytes > this.#maxListBytes) throw new Http2Error('header list too large', 'ENHANCE_YOUR_CALM');
      fields.push(field);
    }
    return fields;
  }

  /** Undefined for a change of the table's size. */
  #readField(isFirst: boolean): Field | undefined {
    const first = this.#block[this.#at] ?? 0;
    if (first >= 0x80) return this.#lookUp(this.#readInteger(7));
    if (first >= 0x40) {
      const field = this.#readLiteral(6);
      this.#remember(field);
      return field;
    }
    if (first < 0x20) return this.#readLiteral(4);
    const limit = this.#readInteger(5);
    if (!isFirst || limit > TABLE_SIZE) throw malformed('table size');
    this.#tableLimit = limit;
    this.#evict();
    return undefined;
  }

  #readLiteral(prefixBits: number): Field {
    const index = this.#readInteger(prefixBits);
    const name = index === 0 ? this.#readText() : this.#lookUp(index)[0];
    return [name, this.#readText()];
  }

  #readInteger(prefixBits: number): number {
    const most = (1 << prefixBits) - 1;
    let value = (this.#block[this.#at++] ?? 0) & most;
    if (value < most) return value;
    for (let shift = 0; shift <= 21; shift += 7) {
      const byte = this.#block[this.#at++];
      if (byte === undefined) throw malformed('integer cut short');
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw malformed('integer too large');
  }

  #readText(): string {
    const isHuffman = (this.#block[this.#at] ?? 0) >= 0x80;
    const length = this.#readInteger(7);
    const start = this.#at;
    const end = start + length;
    if (end > this.#block.length) throw malformed('text cut short');
    this.#at = end;
    if (!isHuffman) return this.#block.toString('latin1', start, end);
    const text = decodeHuffman(this.#block, start, end);
    if (text === undefined) throw malformed('Huffman code');
    return text;
  }

  #lookUp(index: number): Field {
    const field =
      index <= STATIC_TABLE.length
        ? STATIC_TABLE[index - 1]
        : this.#table[this.#table.length - (index - STATIC_TABLE.length)];
    if (field === undefined) throw malformed(`index ${index}`);
    return field;
  }

  #remember(field: Field): void {
    this.#table.push(field);
    this.#tableBytes += costOf(field);
    this.#evict();
  }

  #evict(): void {
    let gone = 0;
    for (; this.#tableBytes > this.#tableLimit; gone++)
      this.#tableBytes -= costOf(this.#table[gone] ?? ['', '']);
    if (gone > 0) this.#table.splice(0, gone);
  }
}

function costOf([name, value]: Field): number {
  return name.length + value.length + FIELD_OVERHEAD;
}

function malformed(what: string): Http2Error {
  return new Http2Error(`malformed header block: ${what}`, 'COMPRESSION_ERROR');
}
