import type { ServerHttp2Stream } from 'node:http2';
import { constants } from 'node:http2';
import type {
  BodySource,
  ByteTunnel,
  Downstream,
  Exchange,
  ExchangeFailure,
  HeaderList,
  RequestHead,
} from '../exchange.ts';
import { headerObject } from '../header-object.ts';
import { heldInStream } from '../memory/costs.ts';
import { readTrailers } from './request-head.ts';
import { MAY_NOT_BE_SENT } from './sent-text.ts';
import { socketTunnel } from './socket-tunnel.ts';

export interface Http2ExchangeOptions {
  readonly downstream: Downstream;
  readonly head: RequestHead;
  readonly hasBody: boolean;
  readonly stream: ServerHttp2Stream;
  readonly onClosed: () => void;
}

/** An HTTP/2 request with its answer. */
export class Http2Exchange implements Exchange {
  readonly downstream: Downstream;
  readonly head: RequestHead;
  readonly body: BodySource | undefined;
  onDrain: (() => void) | undefined;
  onClose: ((complete: boolean) => void) | undefined;
  failure: ExchangeFailure | undefined;
  readonly #options: Http2ExchangeOptions;
  readonly #stream: ServerHttp2Stream;
  /** An answer that waits for what comes with it, so that one without a body is one frame. */
  #pendingHead: { readonly status: number; readonly headers: HeaderList } | undefined;
  #hasResponded = false;
  #hasEnded = false;
  #isClosed = false;
  #awaitsDrain = false;
  #isUpgraded = false;
  #isUpgradeComplete = false;
  #trailers: HeaderList = [];
  #abortBody: (() => void) | undefined;
  #isBodyAborted = false;
  #bytesReceived = 0;
  #bytesSent = 0;
  #activeMs: number = performance.now();

  constructor(options: Http2ExchangeOptions) {
    const { stream } = options;
    this.#options = options;
    this.#stream = stream;
    this.downstream = options.downstream;
    this.head = options.head;
    this.body = options.hasBody ? this.#source() : undefined;
    stream.on('error', () => undefined);
    stream.on('wantTrailers', () => {
      if (stream.closed) return;
      stream.sendTrailers(headerObject(this.#trailers));
      if (this.#trailers.length > 0) this.#refuseRest();
    });
    stream.on('finish', () => {
      if (this.#trailers.length === 0) this.#refuseRest();
    });
    stream.on('close', () => this.#close());
  }

  inform(status: number, headers: HeaderList): void {
    const stream = this.#stream;
    if (this.#hasResponded || this.#isClosed || stream.closed || status < 100 || status > 199) return;
    if (status === 101 || headers.some((text) => MAY_NOT_BE_SENT.test(text))) return;
    stream.additionalHeaders({ ':status': status, ...headerObject(headers) });
  }

  respond(status: number, headers: HeaderList): void {
    if (this.#hasResponded || this.#isClosed) return;
    this.#hasResponded = true;
    this.#activeMs = performance.now();
    this.#pendingHead = { status, headers };
    process.nextTick(() => this.#sendHead(false));
  }

  write(chunk: Buffer): boolean {
    const stream = this.#stream;
    if (!this.#hasResponded || this.#hasEnded || this.#isClosed) return true;
    this.#sendHead(false);
    if (stream.closed || stream.destroyed || stream.writableEnded) return true;
    this.#bytesSent += chunk.length;
    this.#activeMs = performance.now();
    if (stream.write(chunk)) return true;
    if (!this.#awaitsDrain) stream.once('drain', () => this.#onRoom());
    this.#awaitsDrain = true;
    return false;
  }

  #onRoom(): void {
    this.#awaitsDrain = false;
    this.#activeMs = performance.now();
    this.onDrain?.();
  }

  end(trailers: HeaderList = []): void {
    const stream = this.#stream;
    if (!this.#hasResponded || this.#hasEnded || this.#isClosed) return;
    this.#hasEnded = true;
    this.#activeMs = performance.now();
    this.#trailers = readTrailers(trailers);
    this.#sendHead(this.#trailers.length === 0);
    if (!stream.closed && !stream.destroyed && !stream.writableEnded) stream.end();
  }

  abort(): void {
    // By close() it would end first: an answer that is cut short would look whole.
    if (!this.#isClosed && !this.#stream.closed) this.#stream.destroy(new Error('the answer is cut short'));
  }

  upgrade(_status: number, headers: HeaderList): ByteTunnel {
    this.#isUpgraded = true;
    this.#hasResponded = true;
    this.#pendingHead = { status: 200, headers: withoutHandshake(headers) };
    this.#sendHead(false);
    return socketTunnel(this.#stream, undefined, {
      onReceived: (bytes) => {
        this.#bytesReceived += bytes;
      },
      onSent: (bytes) => {
        this.#bytesSent += bytes;
      },
      onClosed: (complete) => {
        this.#isUpgradeComplete = complete;
      },
      reset: () => this.abort(),
    });
  }

  held(): number {
    return heldInStream(this.#stream);
  }

  bytesReceived(): number {
    return this.#bytesReceived;
  }

  bytesSent(): number {
    return this.#bytesSent;
  }

  /** Ends what has stood still for too long. */
  fail(failure: ExchangeFailure): void {
    if (this.#isClosed || this.failure !== undefined) return;
    this.failure = this.#hasResponded ? { ...failure, status: 0 } : failure;
    this.#isBodyAborted = true;
    if (this.#hasResponded) this.abort();
    else {
      this.respond(failure.status, ['content-type', 'text/plain']);
      this.write(Buffer.from(`${failure.details}\n`));
      this.end();
    }
    this.#abortBody?.();
  }

  /** Milliseconds of {@link performance.now} at which something last went in or out. */
  get activeMs(): number {
    return this.#activeMs;
  }

  get isUpgraded(): boolean {
    return this.#isUpgraded;
  }

  #sendHead(endStream: boolean): void {
    const pending = this.#pendingHead;
    const stream = this.#stream;
    if (pending === undefined) return;
    this.#pendingHead = undefined;
    if (stream.closed || stream.destroyed) return;
    const { status, headers } = pending;
    // Where there is a length no trailers follow; elsewhere they may.
    const waitForTrailers = !endStream && !this.#isUpgraded && !headers.includes('content-length');
    try {
      stream.respond([':status', String(status), ...headers], { endStream, waitForTrailers });
    } catch (error) {
      this.failure = { status: 0, flag: 'DPE', details: `answer not sent: ${String(error)}` };
      this.abort();
    }
  }

  /** The answer is complete: what is left of the request is not wanted. RFC 9113, 8.1. */
  #refuseRest(): void {
    const stream = this.#stream;
    if (this.body !== undefined && !stream.readableEnded && !stream.closed)
      stream.close(constants.NGHTTP2_NO_ERROR);
  }

  #source(): BodySource {
    const stream = this.#stream;
    return {
      start: (sink) => {
        let hasEnded = false;
        let trailers: HeaderList = [];
        this.#abortBody = () => {
          if (hasEnded) return;
          hasEnded = true;
          sink.onAbort();
        };
        if (this.#isBodyAborted || stream.destroyed) {
          this.#abortBody();
          return;
        }
        stream.on('trailers', (_headers, _flags, rawTrailers?: string[]) => {
          trailers = readTrailers(rawTrailers ?? []);
        });
        stream.on('data', (chunk: Buffer) => {
          this.#bytesReceived += chunk.length;
          this.#activeMs = performance.now();
          if (!hasEnded) sink.onData(chunk);
        });
        stream.on('end', () => {
          if (hasEnded || stream.aborted) return;
          hasEnded = true;
          this.#activeMs = performance.now();
          sink.onEnd(trailers);
        });
        stream.on('aborted', () => this.#abortBody?.());
        stream.on('close', () => this.#abortBody?.());
      },
      pause: () => stream.pause(),
      resume: () => {
        this.#activeMs = performance.now();
        stream.resume();
      },
    };
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const isComplete = this.#isUpgraded ? this.#isUpgradeComplete : this.#isSent;
    this.onClose?.(isComplete && this.failure === undefined);
    this.#options.onClosed();
  }

  /**
   * Of an answer to a request with a body, Node.js calls the writing finished only after it has closed the stream. A client that
   * resets without an error counts as one that left as long as the answer has not ended.
   */
  get #isSent(): boolean {
    const { aborted, rstCode, writableEnded } = this.#stream;
    return rstCode === constants.NGHTTP2_NO_ERROR && writableEnded && !aborted;
  }
}

/** What only HTTP/1.1 needs to change to WebSocket. */
function withoutHandshake(headers: HeaderList): HeaderList {
  const kept: string[] = [];
  for (let at = 0; at < headers.length; at += 2) {
    const name = headers[at] ?? '';
    if (name !== 'connection' && name !== 'upgrade' && name !== 'sec-websocket-accept')
      kept.push(name, headers[at + 1] ?? '');
  }
  return kept;
}
