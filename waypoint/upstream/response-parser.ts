import type { HeaderList } from '../exchange.ts';
import {
  parseFields,
  parseHead,
  ResponseError,
  type ResponseHead,
  withoutConnection,
} from './response-head.ts';

/** What a parser finds. Chunks of bodies are good for the length of the call. */
export interface ResponseEvents {
  readonly onInform: (head: ResponseHead) => void;
  readonly onHead: (head: ResponseHead) => void;
  readonly onData: (chunk: Buffer) => void;
  readonly onEnd: (trailers: HeaderList) => void;
  /** A 101: what follows is not HTTP. The bytes are good for the length of the call. */
  readonly onSwitch: (head: ResponseHead, rest: Buffer) => void;
}

/** Envoy's default. */
const MAX_HEAD_BYTES: number = 60 * 1024;
/** Of a chunk's size line. */
const MAX_SIZE_LINE = 256;
/** Answers before the answer. */
const MAX_INFORMS = 16;

const CHUNK_SIZE = /^([0-9a-fA-F]{1,13})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?$/;
const HEAD_END = Buffer.from('\r\n\r\n');
const EMPTY = Buffer.alloc(0);

type State = 'head' | 'length' | 'chunk-size' | 'chunk' | 'chunk-end' | 'trailers' | 'until-close' | 'done';

/**
 * Reads one answer after another of a connection: RFC 9112, strictly. Nothing is guessed: lines end in CRLF, a length is given
 * once or not at all, beside `chunked` never.
 */
export class ResponseParser {
  readonly #events: ResponseEvents;
  #state: State = 'done';
  #isHeadRequest = false;
  #mayUpgrade = false;
  #informs = 0;
  /** Of the body, or the chunk. */
  #left = 0;
  /** A head or line that is not complete. */
  #partial: Buffer = EMPTY;

  constructor(events: ResponseEvents) {
    this.#events = events;
  }

  /** Whether a part of a head has come, and is waiting for the rest. */
  get isInHead(): boolean {
    return this.#state === 'head' && this.#partial.length > 0;
  }

  /** A request went out: the next answer is to it. */
  expect(method: string, mayUpgrade: boolean): void {
    this.#state = 'head';
    this.#isHeadRequest = method === 'HEAD';
    this.#mayUpgrade = mayUpgrade;
    this.#informs = 0;
  }

  /**
   * Reads bytes.
   * @throws ResponseError
   */
  read(bytes: Buffer): void {
    let rest = bytes;
    while (rest.length > 0) {
      if (this.#state === 'done') throw new ResponseError('bytes after the answer, or without a request');
      rest = this.#step(rest);
    }
  }

  /**
   * The connection has ended.
   * @returns whether that ends the answer, too
   */
  end(): boolean {
    if (this.#state !== 'until-close') return false;
    this.#finish([]);
    return true;
  }

  #step(bytes: Buffer): Buffer {
    switch (this.#state) {
      case 'head':
        return this.#readHead(bytes);
      case 'length':
      case 'chunk':
        return this.#readBody(bytes);
      case 'chunk-size':
        return this.#readLine(bytes, MAX_SIZE_LINE, (line) => this.#startChunk(line));
      case 'chunk-end':
        return this.#readLine(bytes, 2, (line) => {
          if (line !== '') throw new ResponseError('a chunk is longer than it said');
          this.#state = 'chunk-size';
        });
      case 'trailers':
        return this.#readTrailers(bytes);
      case 'until-close':
        this.#events.onData(bytes);
        return EMPTY;
      case 'done':
        return bytes;
    }
  }

  #readHead(bytes: Buffer): Buffer {
    const known = this.#partial.length;
    const all = known === 0 ? bytes : Buffer.concat([this.#partial, bytes]);
    const end = all.indexOf(HEAD_END, Math.max(0, known - 3));
    if (end > MAX_HEAD_BYTES || (end < 0 && all.length > MAX_HEAD_BYTES))
      throw new ResponseError('the answer has too many headers');
    if (end < 0) {
      checkBeginning(all);
      // The bytes are not ours to keep.
      this.#partial = known === 0 ? Buffer.from(all) : all;
      return EMPTY;
    }
    this.#partial = EMPTY;
    return this.#onHead(all.toString('latin1', 0, end), all.subarray(end + HEAD_END.length));
  }

  #onHead(text: string, rest: Buffer): Buffer {
    const { head, length, isChunked } = parseHead(text);
    const { status } = head;
    if (status === 101) {
      if (!this.#mayUpgrade || head.upgrade === undefined)
        throw new ResponseError('an upgrade that nobody asked for');
      this.#state = 'done';
      this.#events.onSwitch(head, rest);
      return EMPTY;
    }
    if (status < 200) {
      if (++this.#informs > MAX_INFORMS) throw new ResponseError('too many answers before the answer');
      this.#events.onInform(head);
      return rest;
    }
    const hasNoBody = this.#isHeadRequest || status === 204 || status === 304;
    if (hasNoBody || (length === 0 && !isChunked)) {
      this.#state = 'done';
      this.#events.onHead(head);
      this.#events.onEnd([]);
      return rest;
    }
    this.#left = length ?? 0;
    this.#state = isChunked ? 'chunk-size' : length === undefined ? 'until-close' : 'length';
    this.#events.onHead(this.#state === 'until-close' ? { ...head, keepsAlive: false } : head);
    return rest;
  }

  #readBody(bytes: Buffer): Buffer {
    const chunk = bytes.length > this.#left ? bytes.subarray(0, this.#left) : bytes;
    this.#left -= chunk.length;
    const isAll = this.#left === 0;
    const state = this.#state;
    if (isAll) this.#state = state === 'chunk' ? 'chunk-end' : 'done';
    this.#events.onData(chunk);
    if (isAll && state === 'length') this.#events.onEnd([]);
    return bytes.subarray(chunk.length);
  }

  #startChunk(line: string): void {
    const [, digits] = CHUNK_SIZE.exec(line) ?? [];
    if (digits === undefined) throw new ResponseError('not the size of a chunk');
    this.#left = Number.parseInt(digits, 16);
    this.#state = this.#left === 0 ? 'trailers' : 'chunk';
  }

  #readLine(bytes: Buffer, limit: number, use: (line: string) => void): Buffer {
    const all = this.#partial.length === 0 ? bytes : Buffer.concat([this.#partial, bytes]);
    const end = all.indexOf(0x0a);
    if (end > limit || (end < 0 && all.length > limit)) throw new ResponseError('a line is too long');
    if (end < 0) {
      this.#partial = Buffer.from(all);
      return EMPTY;
    }
    if (all[end - 1] !== 0x0d) throw new ResponseError('a line does not end in CRLF');
    this.#partial = EMPTY;
    use(all.toString('latin1', 0, end - 1));
    return all.subarray(end + 1);
  }

  #readTrailers(bytes: Buffer): Buffer {
    const known = this.#partial.length;
    const all = known === 0 ? bytes : Buffer.concat([this.#partial, bytes]);
    // Without any, the end is CRLF alone.
    const isNone = all.length >= 2 && all[0] === 0x0d && all[1] === 0x0a;
    const end = isNone ? 0 : all.indexOf(HEAD_END, Math.max(0, known - 3));
    if (end > MAX_HEAD_BYTES || (end < 0 && all.length > MAX_HEAD_BYTES))
      throw new ResponseError('the answer has too many trailers');
    if (end < 0) {
      this.#partial = known === 0 ? Buffer.from(all) : all;
      return EMPTY;
    }
    this.#partial = EMPTY;
    this.#finish(
      isNone ? [] : withoutConnection(parseFields(all.toString('latin1', 0, end).split('\r\n'), 0)),
    );
    return all.subarray(end + (isNone ? 2 : HEAD_END.length));
  }

  #finish(trailers: HeaderList): void {
    this.#state = 'done';
    this.#events.onEnd(trailers);
  }
}

/** What does not begin like an answer is not waited for. */
function checkBeginning(bytes: Buffer): void {
  const beginning = bytes.toString('latin1', 0, 7);
  if (!'HTTP/1.'.startsWith(beginning)) throw new ResponseError('the answer is not HTTP/1.1');
}
