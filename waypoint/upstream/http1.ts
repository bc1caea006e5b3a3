import type { HeaderList } from '../exchange.ts';
import type { TunnelLeg } from '../tunnel-duplex.ts';
import type { Attempt, AttemptFailure, AttemptHandlers, UpstreamRequest } from './attempt.ts';
import { LegTunnel } from './leg-tunnel.ts';
import { formatChunk, formatHead, formatLastChunk } from './request-text.ts';
import { ResponseError, type ResponseHead } from './response-head.ts';
import { ResponseParser } from './response-parser.ts';

export interface Http1Options {
  /** Idle for so long, in ms, a connection may be one that the other end is closing. */
  readonly stillMs: number;
  /** It is free for another request. */
  readonly onIdle: (connection: Http1Connection) => void;
  /** It takes no more requests. Called once; not before the current one is over. */
  readonly onClose: (connection: Http1Connection) => void;
}

/** How long the other end of a connection that is done with may take to close it, too. */
const RETIRE_MS = 1_000;

interface Exchange {
  readonly handlers: AttemptHandlers;
  readonly isChunked: boolean;
  isSent: boolean;
  isAnswered: boolean;
}

/**
 * One HTTP/1.1 connection to an application: one request at a time. It owns the leg. The cost of a request decides what a
 * waypoint costs, so it works on the leg as it is.
 */
export class Http1Connection {
  readonly #leg: TunnelLeg;
  readonly #options: Http1Options;
  readonly #parser: ResponseParser;
  #current: Exchange | undefined;
  #keepsAlive = true;
  /** It has answered a request before the current one. */
  #isReused = false;
  /** It had been free for so long before the current request that the other end may have been about to close it. */
  #wasStill = false;
  /** Something of the current answer has come. */
  #hasHeard = false;
  #isClosed = false;
  #tunnel: LegTunnel | undefined;
  #retiring: NodeJS.Timeout | undefined;
  /** Until when another request may go out, as the other end has said; on the clock of `performance.now`. */
  usableUntil: number = Number.POSITIVE_INFINITY;
  /** When it last became free. */
  idleSince = 0;

  constructor(leg: TunnelLeg, options: Http1Options) {
    this.#leg = leg;
    this.#options = options;
    this.#parser = new ResponseParser({
      onInform: (head) => this.#current?.handlers.onInform(head.status, head.headers),
      onHead: (head) => this.#onHead(head),
      onData: (chunk) => this.#current?.handlers.onData(Buffer.from(chunk)),
      onEnd: (trailers) => this.#onAnswered(trailers),
      onSwitch: (head, rest) => this.#onSwitch(head, rest),
    });
    leg.start({
      onData: (bytes) => this.#read(bytes),
      onEnd: () => this.#onEnd(),
      onDrain: () => (this.#tunnel ? this.#tunnel.onDrain() : this.#current?.handlers.onDrain()),
      onFinish: () => undefined,
      onAbort: (reason) => this.#onAbort(reason),
    });
  }

  /** Sends a request; only while it is free. */
  send(request: UpstreamRequest, handlers: AttemptHandlers): Attempt {
    const { head, isChunked } = formatHead(request);
    const exchange: Exchange = { handlers, isChunked, isSent: !request.hasBody, isAnswered: false };
    this.#current = exchange;
    this.#hasHeard = false;
    this.#wasStill = this.#isReused && performance.now() - this.idleSince >= this.#options.stillMs;
    // Many servers let go of a connection that asked for an upgrade, also where they refuse it.
    if (request.upgrade !== undefined) this.#keepsAlive = false;
    this.#parser.expect(request.method, request.upgrade !== undefined);
    this.#leg.write(Buffer.from(head, 'latin1'));
    return {
      write: (chunk) => this.#current !== exchange || this.#leg.write(isChunked ? formatChunk(chunk) : chunk),
      end: (trailers) => this.#endRequest(exchange, trailers),
      abort: () => {
        if (this.#current === exchange) this.close();
      },
      held: () => (this.#current === exchange ? (this.#leg.held?.() ?? 0) : 0),
      pause: () => {
        if (this.#current === exchange) this.#leg.pause();
      },
      resume: () => {
        if (this.#current === exchange) this.#leg.resume();
      },
    };
  }

  /** Takes no more requests, and ends as one ends a connection, if the other end does its part. Only while it is free. */
  retire(): void {
    if (this.#isClosed) return;
    this.#closed();
    this.#leg.end();
    this.#retiring = setTimeout(() => this.#leg.abort('NO_ERROR'), RETIRE_MS).unref();
    this.#leg.resume();
  }

  /** Closes it at once; a request that is under way hears no more. */
  close(): void {
    this.#current = undefined;
    this.#leg.abort();
    this.#closed();
  }

  /** Closes it at once; a request that is under way fails. */
  lose(reason: string): void {
    this.#fail({ kind: 'closed', reason });
    this.#leg.abort();
  }

  #endRequest(exchange: Exchange, trailers: HeaderList): void {
    if (this.#current !== exchange || exchange.isSent) return;
    exchange.isSent = true;
    if (exchange.isChunked) this.#leg.write(formatLastChunk(trailers));
  }

  #read(bytes: Buffer): void {
    if (this.#tunnel !== undefined) {
      this.#tunnel.onData(bytes);
      return;
    }
    this.#hasHeard = true;
    try {
      this.#parser.read(bytes);
      // Not before: what else came with the answer would be taken for the next one.
      if (this.#current?.isAnswered === true) this.#free();
    } catch (error) {
      if (!(error instanceof ResponseError)) throw error;
      this.#fail({ kind: 'protocol', reason: error.message });
      this.#leg.abort();
    }
  }

  #onHead(head: ResponseHead): void {
    this.#keepsAlive &&= head.keepsAlive;
    // A second less, for the way there.
    if (head.keepAliveMs !== undefined)
      this.usableUntil = performance.now() + Math.max(0, head.keepAliveMs - 1_000);
    this.#current?.handlers.onHead(head.status, head.headers);
  }

  #onAnswered(trailers: HeaderList): void {
    const exchange = this.#current;
    if (exchange === undefined) return;
    exchange.isAnswered = true;
    exchange.handlers.onEnd(trailers);
  }

  #free(): void {
    const isSent = this.#current?.isSent === true;
    this.#current = undefined;
    if (this.#isClosed) return;
    // The rest of a request is not waited for: it has its answer.
    if (!isSent) {
      this.close();
      return;
    }
    if (!this.#keepsAlive) {
      this.retire();
      return;
    }
    this.#isReused = true;
    // A reader that was too slow for the last answer has let go of it.
    this.#leg.resume();
    this.#options.onIdle(this);
  }

  #onSwitch(head: ResponseHead, rest: Buffer): void {
    const exchange = this.#current;
    if (exchange === undefined) return;
    this.#current = undefined;
    const tunnel = new LegTunnel(this.#leg, Buffer.from(rest));
    this.#tunnel = tunnel;
    this.#closed();
    exchange.handlers.onUpgrade(head.status, head.headers, tunnel);
  }

  #onEnd(): void {
    if (this.#tunnel !== undefined) {
      this.#tunnel.onEnd();
      return;
    }
    clearTimeout(this.#retiring);
    const isMissed = this.#current?.isAnswered === false && !this.#parser.end();
    if (isMissed) {
      const kind = this.#parser.isInHead ? 'protocol' : this.#kindOfLoss;
      this.#fail({ kind, reason: 'the connection ended before the answer did' });
      this.#leg.abort();
    } else this.#leg.end();
    this.#current = undefined;
    this.#closed();
  }

  #onAbort(reason: string): void {
    clearTimeout(this.#retiring);
    if (this.#tunnel !== undefined) this.#tunnel.onAbort(reason);
    else this.#fail({ kind: this.#kindOfLoss, reason });
  }

  get #kindOfLoss(): 'closed' | 'stale' {
    return this.#wasStill && !this.#hasHeard ? 'stale' : 'closed';
  }

  #fail(failure: AttemptFailure): void {
    const exchange = this.#current;
    this.#current = undefined;
    this.#closed();
    if (exchange?.isAnswered === false) exchange.handlers.onFailure(failure);
  }

  #closed(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#options.onClose(this);
  }
}
