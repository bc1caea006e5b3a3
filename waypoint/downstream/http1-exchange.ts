import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type {
  BodySource,
  ByteTunnel,
  Downstream,
  Exchange,
  ExchangeFailure,
  HeaderList,
  RequestHead,
} from '../exchange.ts';
import { heldForReader } from '../memory/costs.ts';
import { firstValue } from '../route/headers.ts';
import { TunnelDuplex } from '../tunnel-duplex.ts';
import { releasedTunnel } from './released-tunnel.ts';
import { readTrailers } from './request-head.ts';
import { MAY_NOT_BE_SENT } from './sent-text.ts';
import { socketTunnel, type TunnelCounts } from './socket-tunnel.ts';

export interface Http1ExchangeOptions {
  readonly downstream: Downstream;
  readonly head: RequestHead;
  readonly hasBody: boolean;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** The client waits for a 100 before it sends the body. */
  readonly awaitsContinue: boolean;
  /** For an upgrade: what came behind the head. */
  readonly first?: Buffer;
  readonly onClosed: () => void;
}

/** An HTTP/1.1 request with its answer. */
export class Http1Exchange implements Exchange {
  readonly downstream: Downstream;
  readonly head: RequestHead;
  readonly body: BodySource | undefined;
  onDrain: (() => void) | undefined;
  onClose: ((complete: boolean) => void) | undefined;
  failure: ExchangeFailure | undefined;
  readonly #options: Http1ExchangeOptions;
  #awaitsContinue: boolean;
  #hasResponded = false;
  #hasEnded = false;
  #isClosed = false;
  #awaitsDrain = false;
  #isUpgraded = false;
  #isBodyAborted = false;
  #abortBody: (() => void) | undefined;
  #bytesReceived = 0;
  #bytesSent = 0;
  #activeMs: number = performance.now();

  constructor(options: Http1ExchangeOptions) {
    const { request, response } = options;
    this.#options = options;
    this.downstream = options.downstream;
    this.head = options.head;
    this.#awaitsContinue = options.awaitsContinue;
    this.body = options.hasBody ? this.#source(request) : undefined;
    response.on('error', () => undefined);
    response.on('close', () => {
      if (!this.#isUpgraded) this.#close(response.writableFinished && this.failure === undefined);
    });
  }

  inform(status: number, headers: HeaderList): void {
    const { response } = this.#options;
    if (this.#hasResponded || this.#isClosed) return;
    if (status === 100) {
      this.#sendContinue();
      return;
    }
    if (status < 102 || status > 199 || headers.some((text) => MAY_NOT_BE_SENT.test(text))) return;
    response.socket?.write(headText(status, 'Informational', headers), 'latin1');
  }

  respond(status: number, headers: HeaderList): void {
    const { request, response, downstream } = this.#options;
    if (this.#hasResponded || this.#isClosed) return;
    this.#hasResponded = true;
    this.#activeMs = performance.now();
    const isWanted = response.shouldKeepAlive && !request.socket.readableEnded;
    const isLast = !isWanted || this.#awaitsContinue || downstream.isDraining();
    if (isLast) response.shouldKeepAlive = false;
    else response.removeHeader('connection'); // that it stays open goes without saying
    try {
      response.writeHead(status, isLast ? [...headers, 'connection', 'close'] : (headers as string[]));
    } catch (error) {
      // A header that no message may have: whoever made it is told by the log.
      this.failure = { status: 0, flag: 'DPE', details: `answer not sent: ${String(error)}` };
      this.#options.request.socket.destroy();
      return;
    }
    process.nextTick(() => {
      // flushHeaders() would write bytes above ASCII as UTF-8, as if they were letters.
      if (this.#bytesSent === 0 && !this.#hasEnded && !this.#isClosed) response.write('', 'latin1');
    });
  }

  write(chunk: Buffer): boolean {
    const { response } = this.#options;
    if (!this.#hasResponded || this.#hasEnded || this.#isClosed || response.destroyed) return true;
    this.#bytesSent += chunk.length;
    this.#activeMs = performance.now();
    if (response.write(chunk)) return true;
    if (!this.#awaitsDrain) response.once('drain', () => this.#onRoom());
    this.#awaitsDrain = true;
    return false;
  }

  #onRoom(): void {
    this.#awaitsDrain = false;
    this.#activeMs = performance.now();
    this.onDrain?.();
  }

  end(trailers: HeaderList = []): void {
    const { response, head } = this.#options;
    if (!this.#hasResponded || this.#hasEnded || this.#isClosed) return;
    this.#hasEnded = true;
    this.#activeMs = performance.now();
    if (trailers.length > 0 && response.chunkedEncoding && wantsTrailers(head))
      response.addTrailers(pairsOf(readTrailers(trailers)));
    response.end();
  }

  abort(): void {
    if (!this.#isClosed) this.#options.request.socket.destroy();
  }

  upgrade(status: number, headers: HeaderList): ByteTunnel {
    const { request, response, first } = this.#options;
    const { socket } = request;
    this.#isUpgraded = true;
    this.#hasResponded = true;
    response.detachSocket(socket);
    if (!headers.some((text) => MAY_NOT_BE_SENT.test(text)))
      socket.write(headText(status, 'Switching Protocols', headers), 'latin1');
    else socket.destroy();
    const counts: TunnelCounts = {
      onReceived: (bytes) => {
        this.#bytesReceived += bytes;
      },
      onSent: (bytes) => {
        this.#bytesSent += bytes;
      },
      onClosed: (complete) => this.#close(complete),
    };
    const tunnel: Duplex = socket;
    const released = tunnel instanceof TunnelDuplex ? releasedTunnel(tunnel, first, counts) : undefined;
    return released ?? socketTunnel(socket, first, counts);
  }

  held(): number {
    const { request, response } = this.#options;
    // What a response says of itself is also that which waits in its socket.
    const inSocket = response.socket?.writableLength ?? 0;
    return this.#isUpgraded ? 0 : heldForReader(request) + response.writableLength - inSocket;
  }

  bytesReceived(): number {
    return this.#bytesReceived;
  }

  bytesSent(): number {
    return this.#bytesSent;
  }

  /** Answers what the client did wrong, or did not do in time, if there is no answer yet; else resets. */
  fail(failure: ExchangeFailure): void {
    const { response } = this.#options;
    if (this.#isClosed || this.failure !== undefined) return;
    const { status, details } = failure;
    this.failure = this.#hasResponded ? { ...failure, status: 0 } : failure;
    this.#isBodyAborted = true;
    if (this.#hasResponded) response.destroy();
    else {
      response.shouldKeepAlive = false;
      this.respond(status, ['content-type', 'text/plain', 'content-length', String(details.length + 1)]);
      response.end(`${details}\n`);
      this.#hasEnded = true;
    }
    this.#abortBody?.();
  }

  /** Milliseconds of {@link performance.now} at which something last went in or out. */
  get activeMs(): number {
    return this.#activeMs;
  }

  /** Whether its body is still coming in. */
  get isReceiving(): boolean {
    return !this.#options.request.complete;
  }

  get isUpgraded(): boolean {
    return this.#isUpgraded;
  }

  #source(request: IncomingMessage): BodySource {
    return {
      start: (sink) => {
        if (this.#awaitsContinue) this.#sendContinue();
        let hasEnded = false;
        this.#abortBody = () => {
          if (hasEnded) return;
          hasEnded = true;
          sink.onAbort();
        };
        if (this.#isBodyAborted) {
          this.#abortBody();
          return;
        }
        request.on('data', (chunk: Buffer) => {
          if (this.#isClosed) return;
          this.#bytesReceived += chunk.length;
          this.#activeMs = performance.now();
          if (!hasEnded) sink.onData(chunk);
        });
        request.on('end', () => {
          if (hasEnded) return;
          hasEnded = true;
          this.#activeMs = performance.now();
          sink.onEnd(readTrailers(request.rawTrailers));
        });
        request.on('close', () => this.#abortBody?.());
      },
      pause: () => request.pause(),
      resume: () => {
        this.#activeMs = performance.now();
        request.resume();
      },
    };
  }

  #sendContinue(): void {
    if (!this.#awaitsContinue || this.#isClosed) return;
    this.#awaitsContinue = false;
    this.#options.response.writeContinue();
  }

  #close(complete: boolean): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.onClose?.(complete);
    this.#options.onClosed();
  }
}

function wantsTrailers({ headers }: RequestHead): boolean {
  return firstValue(headers, 'te') !== undefined;
}

function pairsOf(list: HeaderList): [string, string][] {
  const pairs: [string, string][] = [];
  for (let at = 0; at < list.length; at += 2) pairs.push([list[at] ?? '', list[at + 1] ?? '']);
  return pairs;
}

function headText(status: number, phrase: string, headers: HeaderList): string {
  const lines = pairsOf(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} ${phrase}\r\n${lines.join('')}\r\n`;
}
