import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Downstream, Exchange } from '../exchange.ts';
import { Http1Exchange } from './http1-exchange.ts';
import type { DownstreamLimits, Watch, Watched } from './limits.ts';
import type { RefusedRequest } from './refusal.ts';
import { type HeadCheck, readHttp1Head } from './request-head.ts';

export interface Http1ConnectionOptions {
  readonly socket: Duplex;
  readonly downstream: Downstream;
  readonly limits: DownstreamLimits;
  readonly watch: Watch;
  readonly serveRequest: (exchange: Exchange) => void;
  readonly onRefused: (refused: RefusedRequest) => void;
}

/** Of a body, behind the answer to its request; then the connection ends. */
const MAX_LEFTOVER_BYTES = 256 * 1024;

/** What node:http lets go of with an upgrade. */
interface Released {
  readonly stream: Duplex;
  readonly first?: Buffer;
}

/**
 * One HTTP/1.1 connection: serves its requests in turn, ends what takes too long, and answers what cannot be parsed once the
 * requests before it have been.
 */
export class Http1Connection implements Watched {
  readonly #options: Http1ConnectionOptions;
  /** What came while a request was being served: a client may send several without waiting. */
  readonly #waiting: (() => void)[] = [];
  #current: Http1Exchange | undefined;
  #isBusy = false;
  /** Since when a head has been coming in. */
  #headSinceMs: number | undefined;
  #headBytes = 0;
  #idleSinceMs: number = performance.now();
  /** A request whose answer is over and whose body is not, and since when. */
  #leftover: { readonly request: IncomingMessage; readonly sinceMs: number } | undefined;
  #leftoverBytes = 0;
  #isBroken = false;

  constructor(options: Http1ConnectionOptions) {
    this.#options = options;
    options.watch.add(this);
    options.socket.on('close', () => {
      options.watch.delete(this);
      this.#waiting.length = 0;
    });
  }

  /** Between two requests: nothing of either is here. */
  get isIdle(): boolean {
    const hasLeftover = this.#leftover !== undefined && !this.#leftover.request.complete;
    const { socket } = this.#options;
    const waits = socket.readableLength > 0 || socket.writableLength > 0;
    return !this.#isBusy && !this.#isBroken && this.#headSinceMs === undefined && !hasLeftover && !waits;
  }

  /** Bytes of a head that has begun to come in: node:http keeps them until it is whole. */
  get headBytes(): number {
    return this.#headSinceMs === undefined ? 0 : this.#headBytes;
  }

  /** Bytes came in. */
  noteBytes(bytes: number): void {
    if (this.#leftover !== undefined) this.#noteLeftover(bytes);
    if (this.#isBusy) return;
    if (this.#headSinceMs === undefined) {
      this.#headSinceMs = performance.now();
      this.#headBytes = 0;
    }
    this.#headBytes += bytes;
  }

  /** Serves a request, or refuses it, when its turn comes. */
  take(
    request: IncomingMessage,
    response: ServerResponse,
    awaitsContinue: boolean,
    released?: Released,
  ): void {
    const check = headOf(request);
    this.#inTurn(() => {
      if (check.kind === 'refused') {
        this.#refuse(request, response, check.status, check.reason);
        return;
      }
      if (released !== undefined) attach(response, released.stream);
      const exchange = new Http1Exchange({
        downstream: this.#options.downstream,
        head: check.head,
        hasBody: check.hasBody,
        request,
        response,
        awaitsContinue,
        ...(released?.first !== undefined && { first: released.first }),
        onClosed: () => this.#next(request),
      });
      this.#current = exchange;
      this.#options.serveRequest(exchange);
    });
  }

  /** Refuses a request when its turn comes. @param stream where node:http has let go of it */
  refuse(
    request: IncomingMessage,
    response: ServerResponse,
    status: number,
    details: string,
    stream?: Duplex,
  ): void {
    this.#inTurn(() => {
      if (stream !== undefined) attach(response, stream);
      this.#refuse(request, response, status, details);
    });
  }

  /** What came is not HTTP (or, undefined, the connection broke). */
  breakOff(refusal: { readonly status: number; readonly details: string } | undefined): void {
    const { socket } = this.#options;
    if (this.#isBroken) return;
    this.#isBroken = true;
    if (refusal === undefined) {
      socket.destroy();
      return;
    }
    socket.pause();
    const current = this.#current;
    if (current !== undefined && this.#waiting.length === 0 && current.isReceiving) {
      current.fail({ ...refusal, flag: 'DPE' });
      return;
    }
    this.#inTurn(() => this.#answerRaw(refusal.status, refusal.details));
  }

  checkPatience(nowMs: number): void {
    const { limits, socket, downstream } = this.#options;
    downstream.tunnel?.noteReady();
    const { headMs, requestIdleMs, connectionIdleMs, lingerMs } = limits;
    const current = this.#current;
    if (current !== undefined) {
      if (!current.isUpgraded && nowMs - current.activeMs > requestIdleMs)
        current.fail({ status: 408, flag: 'SI', details: 'nothing was sent for too long' });
    } else if (this.#leftover !== undefined && !this.#leftover.request.complete) {
      if (nowMs - this.#leftover.sinceMs > lingerMs) socket.destroy();
    } else if (this.#headSinceMs !== undefined && nowMs - this.#headSinceMs > headMs) {
      this.#isBroken = true;
      this.#inTurn(() => this.#answerRaw(408, 'the head of the request took too long'));
    } else if (!this.#isBusy && nowMs - this.#idleSinceMs > connectionIdleMs) socket.destroy();
  }

  #inTurn(serve: () => void): void {
    this.#headSinceMs = undefined;
    if (this.#isBusy) {
      this.#waiting.push(serve);
      this.#options.socket.pause();
      return;
    }
    this.#isBusy = true;
    serve();
  }

  /** A little is read, so that the client may get to see the answer before it hears that no more is taken. */
  #noteLeftover(bytes: number): void {
    const { socket } = this.#options;
    this.#leftoverBytes += bytes;
    if (
      this.#leftoverBytes <= MAX_LEFTOVER_BYTES ||
      this.#isBroken ||
      this.#leftover?.request.complete !== false
    )
      return;
    this.#isBroken = true;
    socket.pause();
    socket.end();
  }

  /** A request has been answered; the rest of its body, which nobody wants, is read for a while. */
  #next(request: IncomingMessage): void {
    this.#current = undefined;
    this.#leftover = undefined;
    this.#idleSinceMs = performance.now();
    if (!request.complete && !request.destroyed) {
      this.#leftover = { request, sinceMs: this.#idleSinceMs };
      this.#leftoverBytes = 0;
      request.resume();
    }
    const next = this.#waiting.shift();
    if (next !== undefined) {
      next();
      return;
    }
    this.#isBusy = false;
    setImmediate(() => this.#options.downstream.tunnel?.noteReady());
    if (this.#options.socket.isPaused() && !this.#isBroken) this.#options.socket.resume();
  }

  #refuse(request: IncomingMessage, response: ServerResponse, status: number, details: string): void {
    this.#options.onRefused({
      status,
      details,
      flags: flagsOf(status),
      protocol: request.httpVersionMinor === 0 ? 'HTTP/1.0' : 'HTTP/1.1',
      method: request.method ?? '',
      target: request.url ?? '',
      authority: request.headers.host ?? '',
    });
    response.on('error', () => undefined);
    response.on('close', () => this.#next(request));
    response.shouldKeepAlive = false;
    response.writeHead(status, plainHeaders(details));
    response.end(`${details}\n`);
  }

  /** Answers by hand, as there is no request to answer, and closes. */
  #answerRaw(status: number, details: string): void {
    const { socket, onRefused } = this.#options;
    onRefused({ status, details, flags: flagsOf(status), protocol: 'HTTP/1.1' });
    const headers = plainHeaders(details);
    const lines = [0, 2, 4].map((at) => `${headers[at]}: ${headers[at + 1]}\r\n`).join('');
    socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines}\r\n${details}\n`, () =>
      socket.destroy(),
    );
  }
}

/** A head as node:http has parsed it, checked. */
export function headOf(request: IncomingMessage): HeadCheck {
  return readHttp1Head({
    method: request.method ?? '',
    target: request.url ?? '',
    minorVersion: request.httpVersionMajor === 1 ? request.httpVersionMinor : 0,
    rawHeaders: request.rawHeaders,
  });
}

/** The answer will be the last on this connection, which is no longer node:http's. */
function attach(response: ServerResponse, stream: Duplex): void {
  response.shouldKeepAlive = false;
  response.assignSocket(stream as Parameters<ServerResponse['assignSocket']>[0]);
  response.once('finish', () => stream.end(() => stream.destroy()));
}

function plainHeaders(details: string): string[] {
  return ['content-type', 'text/plain', 'content-length', String(details.length + 1), 'connection', 'close'];
}

/** 403 is a decision, the others are the client's faults. */
function flagsOf(status: number): readonly 'DPE'[] {
  return status === 403 ? [] : ['DPE'];
}
