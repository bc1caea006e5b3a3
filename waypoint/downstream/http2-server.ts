import {
  constants,
  performServerHandshake,
  type ServerHttp2Session,
  type ServerHttp2Stream,
  type ServerOptions,
} from 'node:http2';
import type { Downstream } from '../exchange.ts';
import { HTTP2_BYTES } from '../memory/costs.ts';
import type { RequestRecord } from '../request-record.ts';
import { TunnelDuplex } from '../tunnel-duplex.ts';
import { type HttpServerOptions, holdTunnel } from './http1-server.ts';
import { Http2Exchange } from './http2-exchange.ts';
import { type DownstreamLimits, MAX_HEAD_BYTES, type Watched } from './limits.ts';
import type { PeekedLeg } from './peeked-leg.ts';
import { type RefusedRequest, refusalRecord } from './refusal.ts';
import { type HeadRefusal, MAX_HEADERS, readHttp2Head } from './request-head.ts';

/** Takes tunnels in which HTTP/2 is spoken. */
export interface Http2Tunnels {
  readonly accept: (leg: PeekedLeg, downstream: Downstream) => void;
  /** Asks all clients for no more requests; connections close when the last has been answered. */
  readonly drain: () => void;
}

const PSEUDO_HEADERS = 5;
/** As much is kept of an upload that nobody reads. */
const STREAM_WINDOW_BYTES = 256 * 1024;
/** Credited as bytes come in, so that such uploads hold up nobody else. */
const CONNECTION_WINDOW_BYTES = 4 * 1024 * 1024;
const LAST_STREAM_ID = 2 ** 31 - 1;
const PING_PATIENCE_MS = 1_000;
/** Of one connection in one turn of the event loop: a thousand that come in one read do not keep others waiting. */
const REQUESTS_PER_TURN = 32;

/**
 * What one client may cost, on purpose: a caller is authenticated and may be hostile all the same. Envoy's guards are of the
 * same order (1024 streams, 100 headers of 60 KiB, 1000 control frames that wait, one empty frame after the other).
 */
const OPTIONS: ServerOptions = {
  settings: {
    maxConcurrentStreams: 1024,
    initialWindowSize: STREAM_WINDOW_BYTES,
    maxHeaderListSize: MAX_HEAD_BYTES,
    enableConnectProtocol: true,
  },
  maxHeaderListPairs: MAX_HEADERS + PSEUDO_HEADERS,
  maxSessionMemory: 16,
  maxSettings: 32,
  maxOutstandingPings: 10,
  maxSessionInvalidFrames: 100,
  maxSessionRejectedStreams: 100,
  // Rapid reset: a burst, then so many a second.
  streamResetBurst: 1000,
  streamResetRate: 33,
  peerMaxConcurrentStreams: 100,
  // An application may answer with two of a field that should be there once; a route may add one.
  strictSingleValueFields: false,
};

/** HTTP/2 on tunnels, one session each. */
export function createHttp2Tunnels(options: HttpServerOptions): Http2Tunnels {
  const sessions = new Set<ServerHttp2Session>();
  return {
    accept: (leg, downstream) => {
      const socket = new TunnelDuplex(leg, { remote: downstream.caller.address });
      socket.on('error', () => undefined);
      leg.onBytes = (bytes) => options.ledger.note(bytes);
      holdTunnel(options.ledger, socket, downstream, () => HTTP2_BYTES);
      const session = performServerHandshake(socket, OPTIONS);
      session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
      const connection = new Http2Connection(session, options.limits);
      sessions.add(session);
      options.watch.add(connection);
      session.on('error', () => undefined); // its streams hear of it
      session.on('close', () => {
        sessions.delete(session);
        options.watch.delete(connection);
        socket.destroy();
      });
      session.on('stream', (stream, _headers, flags, rawHeaders) => {
        const endsStream = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
        connection.take({ stream, endsStream, rawHeaders, downstream }, options);
      });
      if (downstream.isDraining()) drain(session);
    },
    drain: () => {
      for (const session of [...sessions]) drain(session);
    },
  };
}

/** In two steps: what was sent before the client could know is served too. Some clients answer no PING once they go away. */
function drain(session: ServerHttp2Session): void {
  if (session.closed || session.destroyed) return;
  const timer = setTimeout(() => session.close(), PING_PATIENCE_MS).unref();
  session.goaway(constants.NGHTTP2_NO_ERROR, LAST_STREAM_ID);
  session.ping(() => {
    clearTimeout(timer);
    session.close();
  });
}

/** A request as the library hands it over. */
interface TakenRequest {
  readonly stream: ServerHttp2Stream;
  readonly endsStream: boolean;
  readonly rawHeaders: readonly string[];
  readonly downstream: Downstream;
}

class Http2Connection implements Watched {
  readonly #session: ServerHttp2Session;
  readonly #limits: DownstreamLimits;
  readonly #exchanges = new Set<Http2Exchange>();
  /** Requests that wait for a later turn of the event loop, and how many this turn still has room for. */
  #waiting: (() => void)[] = [];
  #share = REQUESTS_PER_TURN;
  #isPlanned = false;
  #idleSinceMs: number = performance.now();

  constructor(session: ServerHttp2Session, limits: DownstreamLimits) {
    this.#session = session;
    this.#limits = limits;
  }

  /** Serves a request; what comes at once with many others gets its turn when others have had theirs. */
  take(request: TakenRequest, options: HttpServerOptions): void {
    if (!this.#isPlanned) {
      this.#isPlanned = true;
      setImmediate(() => this.#nextTurn());
    }
    if (this.#share > 0) {
      this.#share -= 1;
      this.#serve(request, options);
      return;
    }
    const { stream } = request;
    stream.on('error', () => undefined);
    this.#waiting.push(() => {
      if (!stream.closed && !stream.destroyed) this.#serve(request, options);
      else options.onRecord(recordOf(request, { status: 0, details: 'the client left', flags: ['DC'] }));
    });
  }

  #nextTurn(): void {
    this.#isPlanned = this.#waiting.length > 0;
    for (const serve of this.#waiting.splice(0, REQUESTS_PER_TURN)) serve();
    this.#share = this.#isPlanned ? 0 : REQUESTS_PER_TURN;
    if (this.#isPlanned) setImmediate(() => this.#nextTurn());
  }

  #serve(request: TakenRequest, options: HttpServerOptions): void {
    const { stream, endsStream, rawHeaders, downstream } = request;
    const check = readHttp2Head(rawHeaders, endsStream);
    if (check.kind === 'refused') {
      refuse(stream, check);
      const { status, reason } = check;
      options.onRecord(recordOf(request, { status, details: reason, flags: status === 403 ? [] : ['DPE'] }));
      return;
    }
    const exchange: Http2Exchange = new Http2Exchange({
      downstream,
      head: check.head,
      hasBody: check.hasBody,
      stream,
      onClosed: () => {
        this.#exchanges.delete(exchange);
        this.#idleSinceMs = performance.now();
      },
    });
    this.#exchanges.add(exchange);
    options.serveRequest(exchange);
  }

  checkPatience(nowMs: number): void {
    for (const exchange of this.#exchanges) {
      if (!exchange.isUpgraded && nowMs - exchange.activeMs > this.#limits.requestIdleMs)
        exchange.fail({ status: 408, flag: 'SI', details: 'nothing was sent for too long' });
    }
    const isIdle = this.#exchanges.size === 0;
    if (isIdle && nowMs - this.#idleSinceMs > this.#limits.connectionIdleMs) this.#session.close();
  }
}

function refuse(stream: ServerHttp2Stream, { status, reason }: HeadRefusal): void {
  stream.on('error', () => undefined);
  stream.respond({ ':status': status, 'content-type': 'text/plain' });
  stream.end(`${reason}\n`);
  stream.resume(); // what still comes of its body goes nowhere
}

/** Of a request that nobody was asked to serve. */
function recordOf(
  { rawHeaders, downstream }: TakenRequest,
  why: Pick<RefusedRequest, 'status' | 'details' | 'flags'>,
): RequestRecord {
  return refusalRecord(downstream, {
    ...why,
    protocol: 'HTTP/2',
    method: fieldIn(rawHeaders, ':method'),
    target: fieldIn(rawHeaders, ':path'),
    authority: fieldIn(rawHeaders, ':authority'),
  });
}

function fieldIn(rawHeaders: readonly string[], name: string): string {
  const at = rawHeaders.indexOf(name);
  return at < 0 ? '' : (rawHeaders[at + 1] ?? '');
}
