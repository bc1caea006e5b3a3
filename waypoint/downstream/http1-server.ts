import { createServer, type IncomingMessage, type Server, ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Downstream, Exchange } from '../exchange.ts';
import type { Carrier } from '../hand-over/server-tunnel.ts';
import { HTTP1_BYTES, ownerOf } from '../memory/costs.ts';
import type { Ledger } from '../memory/ledger.ts';
import type { RequestRecord } from '../request-record.ts';
import { TunnelDuplex } from '../tunnel-duplex.ts';
import { Http1Connection, headOf } from './http1-connection.ts';
import { type DownstreamLimits, MAX_HEAD_BYTES, type Watch } from './limits.ts';
import type { PeekedLeg } from './peeked-leg.ts';
import { type RefusedRequest, refusalRecord } from './refusal.ts';

export interface HttpServerOptions {
  readonly limits: DownstreamLimits;
  readonly watch: Watch;
  readonly ledger: Ledger;
  /** Answers a request. Never throws. */
  readonly serveRequest: (exchange: Exchange) => void;
  /** Of requests that were refused here, which nobody else hears of. */
  readonly onRecord: (record: RequestRecord) => void;
}

/** Takes tunnels in which HTTP/1.1 is spoken. */
export interface Http1Tunnels {
  readonly accept: (leg: PeekedLeg, downstream: Downstream) => void;
}

/** What node:http's parser calls what it refuses; all else is 400. */
const STATUS_BY_CODE: ReadonlyMap<string, number> = new Map([
  ['HPE_HEADER_OVERFLOW', 431],
  ['HPE_CHUNK_EXTENSIONS_OVERFLOW', 413],
]);

/**
 * A node:http server without a listener, strict: `insecureHTTPParser` is never set. Requests of a connection are served one
 * after the other, as their answers have to be.
 */
export function createHttp1Tunnels(options: HttpServerOptions): Http1Tunnels {
  const connections = new WeakMap<object, Http1Connection>();
  const server = createServer({
    insecureHTTPParser: false,
    maxHeaderSize: MAX_HEAD_BYTES,
    // Looked after here, as a refusal has to be logged, and a connection that is idle may stay.
    headersTimeout: 0,
    requestTimeout: 0,
    keepAliveTimeout: 0,
    requireHostHeader: false,
    optimizeEmptyRequests: true,
    shouldUpgradeCallback: (request) => {
      const check = headOf(request);
      return check.kind === 'request' && check.head.upgrade !== undefined;
    },
  });
  // The parser would drop what is beyond; they are counted, and refused, by us.
  server.maxHeadersCount = 0;
  // A client may end its direction after the request, as it may without a waypoint in between.
  Object.assign(server, { httpAllowHalfOpen: true });
  server.on('request', (request, response) =>
    connections.get(request.socket)?.take(request, response, false),
  );
  server.on('checkContinue', (request, response) =>
    connections.get(request.socket)?.take(request, response, true),
  );
  server.on('checkExpectation', (request, response) =>
    connections.get(request.socket)?.refuse(request, response, 417, 'the expectation is not known'),
  );
  takeOver(server, 'connect', (request, stream) => {
    const response = new ServerResponse(request);
    const details = 'no CONNECT inside a tunnel';
    connections.get(request.socket)?.refuse(request, response, 403, details, stream);
  });
  takeOver(server, 'upgrade', (request, stream, first) =>
    connections.get(request.socket)?.take(request, new ServerResponse(request), false, { stream, first }),
  );
  server.on('clientError', (error: Error & { readonly code?: string }, socket) => {
    const status = STATUS_BY_CODE.get(error.code ?? '') ?? 400;
    const isHttp = error.code?.startsWith('HPE_') === true && error.code !== 'HPE_INVALID_EOF_STATE';
    connections.get(socket)?.breakOff(isHttp ? { status, details: wordsOf(error, status) } : undefined);
  });
  return {
    accept: (leg, downstream) => {
      const socket = new TunnelDuplex(leg, { remote: downstream.caller.address });
      const connection = new Http1Connection({
        ...options,
        socket,
        downstream,
        onRefused: (refused: RefusedRequest) => options.onRecord(refusalRecord(downstream, refused)),
      });
      connection.noteBytes(0); // the first have come
      leg.onBytes = (bytes) => {
        connection.noteBytes(bytes);
        options.ledger.note(bytes);
      };
      holdTunnel(options.ledger, socket, downstream, () => HTTP1_BYTES + connection.headBytes);
      connections.set(socket, connection);
      if (downstream.tunnel !== undefined)
        downstream.tunnel.carrier = idleCarrier(downstream, socket, connection);
      server.emit('connection', socket);
    },
  };
}

/** Between two requests, a connection may go to another process. */
function idleCarrier(
  { caller, authority, frontend }: Downstream,
  socket: TunnelDuplex,
  connection: Http1Connection,
): Carrier {
  return {
    isReady: () => connection.isIdle,
    describe: () => ({ caller, authority, frontend: frontend.name, use: { kind: 'http1' } }),
    leave: () => socket.destroy(),
  };
}

/** What waits in a tunnel is its caller's; who is shed is reset. */
export function holdTunnel(
  ledger: Ledger,
  socket: TunnelDuplex,
  { caller }: Downstream,
  ownBytes: () => number,
): void {
  const holder = {
    owner: ownerOf(caller),
    held: () => ownBytes() + socket.held,
    shed: () => socket.destroy(),
  };
  ledger.add(holder);
  socket.on('close', () => ledger.delete(holder));
}

/** Events in which node:http lets go of a connection. */
function takeOver(
  server: Server,
  event: 'connect' | 'upgrade',
  take: (request: IncomingMessage, stream: Duplex, first: Buffer) => void,
): void {
  server.on(event, (request, stream, first) => {
    stream.on('error', () => undefined);
    take(request, stream, first);
  });
}

function wordsOf(error: Error & { readonly reason?: string }, status: number): string {
  const what = (error.reason ?? error.message).toLowerCase();
  return `not HTTP: ${what === '' ? (STATUS_CODES[status] ?? 'malformed') : what}`;
}
