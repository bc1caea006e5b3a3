import { once } from 'node:events';
import { createServer as createHttpServer, type Server as HttpServer, type RequestListener } from 'node:http';
import { createServer as createHttp2Server, type Http2Server, type ServerHttp2Stream } from 'node:http2';
import { connect as connectTcp, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { type Identity, parseIdentity } from '#certs/identity.ts';
import type { Svid } from '#certs/svid.ts';
import { parseAuthority } from '#ztunnel/hbone/authority.ts';
import { fieldOf } from '#ztunnel/hbone/headers.ts';
import type { Field } from '#ztunnel/hbone/hpack-tables.ts';
import { createHboneServer, type ServerSession } from '#ztunnel/hbone/server.ts';
import { SocketLeg } from '#ztunnel/hbone/socket-leg.ts';
import { splice } from '#ztunnel/hbone/splice.ts';
import { OK, SETTINGS } from '#ztunnel/hbone/testing.ts';
import type { BodySink, ByteTunnel, Downstream, Exchange, HeaderList, RequestHead } from '../exchange.ts';
import type { Cluster, Endpoint, Frontend } from '../model.ts';

/** Small real servers, and an exchange in memory: for tests only. */

export const WEB: Identity = parseIdentity('spiffe://cluster.local/ns/shop/sa/web');
export const APP: Identity = parseIdentity('spiffe://cluster.local/ns/pay/sa/ledger');
export const WAYPOINT: Identity = parseIdentity('spiffe://cluster.local/ns/pay/sa/waypoint');

export const FRONTEND: Frontend = {
  name: 'inbound-vip|80|http|ledger.pay.svc.cluster.local',
  service: 'pay/ledger.pay.svc.cluster.local',
  port: 80,
  authorizations: [],
  protocol: 'http',
  routeTable: 'inbound-vip|80|http|ledger.pay.svc.cluster.local',
  tcp: [],
};

export function downstream(
  fields: { readonly caller?: Partial<Downstream['caller']>; readonly frontend?: Frontend } = {},
): Downstream {
  return {
    caller: {
      identity: WEB,
      address: { ip: '10.244.1.7', port: 40_000 },
      baggage: { namespace: 'shop', workloadName: 'web', workloadType: 'deployment' },
      traceparent: undefined,
      connectionId: undefined,
      ...fields.caller,
    },
    frontend: fields.frontend ?? FRONTEND,
    authority: { ip: '10.96.0.10', port: 80 },
    isDraining: () => false,
  };
}

export function endpoint(port: number, fields: Partial<Endpoint> = {}): Endpoint {
  return {
    address: { ip: '127.0.0.1', port },
    health: 'healthy',
    weight: 1,
    tunnel: 'NONE',
    identity: APP,
    workload: { uid: `pay/ledger-${port}`, name: `ledger-${port}`, namespace: 'pay' },
    ...fields,
  };
}

export function cluster(endpoints: readonly Endpoint[], fields: Partial<Cluster> = {}): Cluster {
  return {
    name: 'inbound-vip|80|ledger.pay.svc.cluster.local',
    backend: 'pay/ledger:80',
    service: 'pay/ledger.pay.svc.cluster.local',
    protocol: 'http1',
    balancing: 'round-robin',
    connectTimeoutMs: 2_000,
    retryBudget: { percent: 20, minConcurrent: 3 },
    endpoints,
    ...fields,
  };
}

/** A server on loopback, closed with all its connections. */
export interface Listening extends AsyncDisposable {
  readonly port: number;
  /** Connections that were made, and those that are open. */
  readonly sockets: () => { readonly made: number; readonly open: number };
  /** Ends the connections that are open. */
  readonly closeAll: () => void;
}

export async function listen(server: Server | HttpServer | Http2Server): Promise<Listening> {
  const open = new Set<Socket>();
  let made = 0;
  server.on('connection', (socket: Socket) => {
    made += 1;
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    socket.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  return {
    port,
    sockets: () => ({ made, open: open.size }),
    closeAll: () => {
      for (const socket of open) socket.end();
    },
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}

export async function httpApp(answer: RequestListener): Promise<Listening> {
  return await listen(createHttpServer({ keepAliveTimeout: 60_000 }, answer));
}

export async function http2App(
  answer: (stream: ServerHttp2Stream, headers: Record<string, unknown>) => void,
): Promise<Listening> {
  const server = createHttp2Server();
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    stream.on('error', () => undefined);
    answer(stream, headers);
  });
  server.on('sessionError', () => undefined);
  return await listen(server);
}

/** What a client sends is given to the handler with each piece; the socket answers with any bytes it likes. */
export async function rawApp(onData: (socket: Socket, text: string) => void): Promise<Listening> {
  return await listen(
    createTcpServer({ allowHalfOpen: true }, (socket) => {
      socket.on('data', (bytes) => onData(socket, bytes.toString('latin1')));
      socket.on('end', () => socket.end());
    }),
  );
}

/** A port on which nobody listens. */
export async function deadPort(): Promise<number> {
  const server = await listen(createTcpServer());
  await server[Symbol.asyncDispose]();
  return server.port;
}

export interface HboneGate extends Listening {
  /** Fields of each CONNECT, in order. */
  readonly connects: readonly (readonly Field[])[];
  /** Closes the sessions that there are. */
  readonly cut: () => void;
}

/**
 * A real HBONE server that splices each CONNECT to the port of its authority on loopback: a ztunnel in front of applications.
 * @param refusal what it answers instead
 * @param port where it leads, if not to the authority's
 */
export async function hboneGate(svid: Svid, refusal?: '401' | '503', port?: number): Promise<HboneGate> {
  const connects: (readonly Field[])[] = [];
  const sessions = new Set<ServerSession>();
  const server = createHboneServer(svid, {
    settings: SETTINGS,
    handshakeTimeoutMs: 2_000,
    onSession: (session) => sessions.add(session),
    onSessionClose: (session) => sessions.delete(session),
    onRefused: () => undefined,
    onRequest: (session, stream, fields) => {
      connects.push(fields);
      const authority = parseAuthority(fieldOf(fields, ':authority') ?? '');
      if (authority?.kind !== 'address' || refusal !== undefined) {
        session.connection.respond(stream, [[':status', refusal ?? '400']], true);
        return;
      }
      const to = { host: '127.0.0.1', port: port ?? authority.address.port, allowHalfOpen: true };
      const socket = connectTcp(to);
      socket.once('connect', () => {
        session.connection.respond(stream, OK, false);
        splice(stream, new SocketLeg(socket), () => undefined);
      });
      socket.once('error', () => session.connection.respond(stream, [[':status', '503']], true));
    },
  });
  const listening = await listen(createTcpServer({ noDelay: true }, (socket) => server.accept(socket)));
  return {
    ...listening,
    connects,
    cut: () => {
      for (const { connection } of sessions) connection.close('cut');
    },
  };
}

/** An exchange whose client is the test. */
export class MemoryExchange implements Exchange {
  readonly downstream: Downstream;
  readonly head: RequestHead;
  readonly body: Exchange['body'];
  onDrain: (() => void) | undefined;
  onClose: ((complete: boolean) => void) | undefined;
  readonly informed: number[] = [];
  status = 0;
  headers: HeaderList = [];
  trailers: HeaderList | undefined;
  readonly #pieces: Buffer[] = [];
  isAborted = false;
  isPaused = false;
  /** While false, answers have to wait. */
  hasRoom = true;
  sink: BodySink | undefined;
  #received = 0;
  #sent = 0;
  readonly #over = Promise.withResolvers<void>();
  readonly #responded = Promise.withResolvers<void>();
  upgraded: MemoryTunnel | undefined;

  constructor(
    head: Partial<RequestHead> = {},
    options: { readonly hasBody?: boolean; readonly downstream?: Downstream } = {},
  ) {
    this.head = {
      method: 'GET',
      target: '/',
      authority: 'ledger.pay',
      headers: [],
      protocol: 'HTTP/1.1',
      ...head,
    };
    this.downstream = options.downstream ?? downstream();
    this.body =
      options.hasBody === true
        ? {
            start: (sink) => {
              this.sink = sink;
            },
            pause: () => {
              this.isPaused = true;
            },
            resume: () => {
              this.isPaused = false;
            },
          }
        : undefined;
  }

  /** There is an answer's head. */
  get responded(): Promise<void> {
    return this.#responded.promise;
  }

  /** It is over: complete, aborted, or given up. */
  get over(): Promise<void> {
    return this.#over.promise;
  }

  get text(): string {
    return Buffer.concat(this.#pieces).toString('latin1');
  }

  header(name: string): string | undefined {
    const at = this.headers.findIndex((text, index) => index % 2 === 0 && text === name);
    return at < 0 ? undefined : this.headers[at + 1];
  }

  /** Sends a piece of the body, and all of it that is left with `isLast`. */
  send(chunk: string | Buffer, isLast = false, trailers: HeaderList = []): void {
    const bytes = Buffer.from(chunk);
    this.#received += bytes.length;
    if (bytes.length > 0) this.sink?.onData(bytes);
    if (isLast) this.sink?.onEnd(trailers);
  }

  /** The client leaves. */
  leave(): void {
    this.onClose?.(false);
    this.#over.resolve();
  }

  inform(status: number): void {
    this.informed.push(status);
  }

  respond(status: number, headers: HeaderList): void {
    this.status = status;
    this.headers = headers;
    this.#responded.resolve();
  }

  write(chunk: Buffer): boolean {
    this.#checkOrder('a body');
    this.#sent += chunk.length;
    if (this.#sent < 1_000_000) this.#pieces.push(chunk);
    return this.hasRoom;
  }

  end(trailers: HeaderList = []): void {
    this.#checkOrder('an end');
    this.trailers = trailers;
    this.onClose?.(true);
    this.#over.resolve();
  }

  abort(): void {
    this.isAborted = true;
    this.onClose?.(false);
    this.#over.resolve();
  }

  upgrade(status: number, headers: HeaderList): ByteTunnel {
    this.respond(status, headers);
    this.upgraded = new MemoryTunnel();
    return this.upgraded;
  }

  /** A real one would pass over it. */
  #checkOrder(what: string): void {
    if (this.status === 0 || this.trailers !== undefined) throw new TypeError(`${what} out of order`);
  }

  held(): number {
    return 0;
  }

  bytesReceived(): number {
    return this.#received;
  }

  bytesSent(): number {
    return this.#sent;
  }
}

/** The client's end of an upgraded connection. */
export class MemoryTunnel implements ByteTunnel {
  events: Parameters<ByteTunnel['start']>[0] | undefined;
  readonly #pieces: Buffer[] = [];
  hasEnded = false;
  isAborted = false;

  get text(): string {
    return Buffer.concat(this.#pieces).toString('latin1');
  }

  start(events: Parameters<ByteTunnel['start']>[0]): void {
    this.events = events;
  }

  write(chunk: Buffer): boolean {
    this.#pieces.push(chunk);
    return true;
  }

  end(): void {
    this.hasEnded = true;
  }

  abort(): void {
    this.isAborted = true;
  }

  held(): number {
    return 0;
  }

  pause(): void {}

  resume(): void {}
}
