import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants } from 'node:http2';
import type { Duplex } from 'node:stream';
import type { HeaderList } from '../exchange.ts';
import { headerObject } from '../header-object.ts';
import { heldInStream } from '../memory/costs.ts';
import type { Attempt, AttemptFailure, AttemptHandlers, UpstreamRequest } from './attempt.ts';

export interface Http2Options {
  /** Another request may be sent: one ended, or the other end allows more. */
  readonly onRoom: (connection: Http2Connection) => void;
  /** It takes no more requests. Called once; requests under way go on. */
  readonly onClose: (connection: Http2Connection) => void;
  /** It is gone, and all its requests are over. */
  readonly onGone: (connection: Http2Connection) => void;
}

/** Requests at a time on one connection, as far as the other end allows as many. */
const MAX_STREAMS = 100;
/** What an application may send of one answer before it is read: as much is kept for a client that does not. */
const STREAM_WINDOW = 256 * 1024;
/** Credited as bytes come in, so that those who do not read hold up nobody else. */
const CONNECTION_WINDOW = 16 * 1024 * 1024;
/** Answers before the answer, as in HTTP/1.1. */
const MAX_INFORMS = 16;
/** As Envoy has it, and 100 fields beside pseudo headers. */
const MAX_HEADER_BYTES = 60 * 1024;
const MAX_HEADER_PAIRS = 104;
/** What came over HTTP/1.1 may have two of a field that should be there once. The types know this of servers only. */
const REPEATED_FIELDS = { strictSingleValueFields: false };
const {
  NGHTTP2_CANCEL,
  NGHTTP2_FLAG_END_STREAM,
  NGHTTP2_NO_ERROR,
  NGHTTP2_PROTOCOL_ERROR,
  NGHTTP2_REFUSED_STREAM,
} = constants;

/** One HTTP/2 connection to an application; by node:http2. It owns the socket. */
export class Http2Connection {
  readonly #session: ClientHttp2Session;
  readonly #options: Http2Options;
  readonly #streams = new Set<ClientHttp2Stream>();
  #isClosed = false;
  #failure: AttemptFailure | undefined;
  /** When its last request ended. */
  idleSince: number = performance.now();

  constructor(socket: Duplex, options: Http2Options) {
    this.#options = options;
    const settings = {
      enablePush: false,
      initialWindowSize: STREAM_WINDOW,
      maxHeaderListSize: MAX_HEADER_BYTES,
    };
    this.#session = connect('http://upstream', {
      createConnection: () => socket,
      settings,
      maxHeaderListPairs: MAX_HEADER_PAIRS,
      ...REPEATED_FIELDS,
    });
    this.#session.on('connect', () => this.#session.setLocalWindowSize(CONNECTION_WINDOW));
    this.#session.on('remoteSettings', () => options.onRoom(this));
    this.#session.on('goaway', () => this.#closed());
    this.#session.on('error', (error) => {
      const kind = isProtocolError(error) ? 'protocol' : 'closed';
      this.#failure ??= { kind, reason: error.message };
      this.#closed();
    });
    this.#session.on('close', () => {
      this.#closed();
      options.onGone(this);
    });
  }

  get hasRoom(): boolean {
    return !this.#isClosed && this.#streams.size < this.#limit;
  }

  get isIdle(): boolean {
    return this.#streams.size === 0;
  }

  get #limit(): number {
    return Math.min(MAX_STREAMS, this.#session.remoteSettings?.maxConcurrentStreams ?? MAX_STREAMS);
  }

  /** Sends a request; only while there is room. */
  send(request: UpstreamRequest, handlers: AttemptHandlers): Attempt {
    const stream = this.#session.request(fieldsOf(request), {
      endStream: !request.hasBody,
      waitForTrailers: request.hasBody,
    });
    this.#streams.add(stream);
    stream.once('close', () => this.#forget(stream));
    return new Http2Attempt(stream, handlers, {
      isHead: request.method === 'HEAD',
      sessionFailure: () => this.#failure ?? (this.#session.destroyed ? GONE : undefined),
    });
  }

  /** Takes no more requests; closes when those under way are over. */
  drain(): void {
    if (!this.#session.destroyed) this.#session.close();
    this.#closed();
  }

  /** Closes it at once; requests under way fail. */
  lose(reason: string): void {
    this.#failure ??= { kind: 'closed', reason };
    this.#session.destroy();
    this.#closed();
  }

  #forget(stream: ClientHttp2Stream): void {
    this.#streams.delete(stream);
    this.idleSince = performance.now();
    if (!this.#isClosed) this.#options.onRoom(this);
  }

  #closed(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#options.onClose(this);
  }
}

/** Node.js gives streams whose connection has ended the code of a stream that was reset. */
const GONE: AttemptFailure = { kind: 'closed', reason: 'the connection ended before the answer did' };

class Http2Attempt implements Attempt {
  readonly #stream: ClientHttp2Stream;
  #handlers: AttemptHandlers | undefined;
  readonly #sessionFailure: () => AttemptFailure | undefined;
  readonly #isHead: boolean;
  #trailers: HeaderList = [];
  readonly #isComplete: () => boolean;
  /** Of the answer's body, where its length was said, less what has come. */
  #left = 0;
  #requestTrailers: HeaderList = [];

  constructor(
    stream: ClientHttp2Stream,
    handlers: AttemptHandlers,
    options: { readonly isHead: boolean; readonly sessionFailure: () => AttemptFailure | undefined },
  ) {
    this.#stream = stream;
    this.#handlers = handlers;
    this.#isHead = options.isHead;
    this.#sessionFailure = options.sessionFailure;
    this.#isComplete = watchEnd(stream);
    this.#listen();
  }

  write(chunk: Buffer): boolean {
    if (this.#stream.writableEnded || this.#stream.destroyed) return true;
    return this.#stream.write(chunk);
  }

  end(trailers: HeaderList): void {
    this.#requestTrailers = trailers;
    if (!this.#stream.writableEnded && !this.#stream.destroyed) this.#stream.end();
  }

  abort(): void {
    this.#handlers = undefined;
    if (!this.#stream.closed) this.#stream.close(NGHTTP2_CANCEL);
  }

  held(): number {
    return heldInStream(this.#stream);
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  #listen(): void {
    const stream = this.#stream;
    let informs = 0;
    stream.on('headers', (_headers, _flags, raw: string[]) => {
      if (++informs > MAX_INFORMS) {
        this.#fail({ kind: 'protocol', reason: 'too many answers before the answer' });
        stream.close(NGHTTP2_CANCEL);
        return;
      }
      const { status, headers } = headOf(raw);
      this.#handlers?.onInform(status, headers);
    });
    stream.on('response', (headers, flags, raw: string[]) => {
      const head = headOf(raw);
      const hasBody = !this.#isHead && head.status !== 204 && head.status !== 304;
      if (hasBody) this.#left = Number(headers['content-length'] ?? 0);
      this.#handlers?.onHead(head.status, head.headers);
      // At once, so that what is one frame here goes on as one: gRPC takes a status for trailers only then.
      if ((flags & NGHTTP2_FLAG_END_STREAM) !== 0) this.#onEnd();
      // Not before: Node.js tells of data at once, and of heads a little later.
      stream.on('data', (chunk: Buffer) => {
        this.#left -= chunk.length;
        this.#handlers?.onData(chunk);
      });
    });
    stream.on('trailers', (_headers, _flags, raw: string[]) => {
      this.#trailers = headOf(raw).headers;
    });
    stream.on('wantTrailers', () => {
      if (!stream.destroyed) stream.sendTrailers(headerObject(this.#requestTrailers));
    });
    stream.on('drain', () => this.#handlers?.onDrain());
    stream.on('end', () => this.#onEnd());
    stream.on('error', (error) => this.#onError(error));
    stream.on('close', () => this.#fail(this.#failureOf('the stream was closed')));
  }

  /** Node.js ends what was reset, too. */
  #onEnd(): void {
    if (!this.#isComplete()) {
      this.#fail(this.#failureOf('the stream ended before the answer did'));
      return;
    }
    if (this.#left > 0) {
      this.#fail({ kind: 'closed', reason: 'the answer is shorter than it said' });
      return;
    }
    const handlers = this.#handlers;
    this.#handlers = undefined;
    if (!this.#stream.writableEnded) this.#stream.close(NGHTTP2_NO_ERROR);
    handlers?.onEnd(this.#trailers);
  }

  #onError(error: Error): void {
    // A session that fails tells its streams first.
    if (isProtocolError(error)) this.#fail({ kind: 'protocol', reason: error.message });
    else this.#fail(this.#failureOf(error.message));
  }

  #failureOf(reason: string): AttemptFailure {
    const session = this.#sessionFailure();
    if (session !== undefined) return session;
    const { rstCode } = this.#stream;
    if (rstCode === NGHTTP2_REFUSED_STREAM) return { kind: 'refused', reason: 'the stream was refused' };
    if (rstCode === undefined) return { kind: 'closed', reason };
    if (rstCode === NGHTTP2_PROTOCOL_ERROR)
      return { kind: 'protocol', reason: 'the stream was reset for a protocol error' };
    return { kind: 'reset', reason: `the stream was reset with code ${rstCode}` };
  }

  #fail(failure: AttemptFailure): void {
    const handlers = this.#handlers;
    this.#handlers = undefined;
    handlers?.onFailure(failure);
  }
}

/**
 * Whether END_STREAM has come: only that makes an answer complete. For a stream that was reset without an error, or whose
 * connection is gone, Node.js emits `end` with the same `rstCode` as for one that has ended, and the only thing that differs is the
 * order: what ends by END_STREAM is ended first, and then closed.
 */
function watchEnd(stream: ClientHttp2Stream): () => boolean {
  let isComplete = false;
  const push = stream.push.bind(stream);
  stream.push = (chunk: unknown, encoding?: BufferEncoding): boolean => {
    if (chunk === null && !stream.closed) isComplete = true;
    return push(chunk, encoding);
  };
  return () => isComplete;
}

function fieldsOf(request: UpstreamRequest): string[] {
  const { method, target, authority, scheme, headers } = request;
  return [':method', method, ':scheme', scheme, ':authority', authority, ':path', target, ...headers];
}

function headOf(raw: readonly string[]): { readonly status: number; readonly headers: HeaderList } {
  let status = 0;
  const headers: string[] = [];
  for (let index = 0; index < raw.length; index += 2) {
    const name = raw[index] ?? '';
    const value = raw[index + 1] ?? '';
    if (name === ':status') status = Number(value);
    else headers.push(name, value);
  }
  return { status, headers };
}

function isProtocolError(error: Error & { readonly code?: string }): boolean {
  return error.code === 'ERR_HTTP2_ERROR' || error.code === 'ERR_HTTP2_SESSION_ERROR';
}
