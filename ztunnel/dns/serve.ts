import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import type { Logger } from 'pino';
import { type HostPort, type Ip, parseIp } from '#api/address.ts';
import { closeDescriptor } from '../capture/in-pod-sockets.ts';
import type { Forwarder } from './forward.ts';
import { framed, readFramed } from './framing.ts';
import { type DnsQuery, payloadLimit, readQuery } from './query.ts';
import type { NameAnswer } from './resolve.ts';
import { encodeAnswer, encodeError, encodeFormatError, RCODE, relayResponse } from './response.ts';

/** Seconds that our own answers may be kept. */
const TTL_SECONDS = 30;
const TCP_PAYLOAD = 65535;
const TCP_IDLE_MS = 10_000;
const TCP_CONNECTIONS = 128;
/** Queries of one TCP connection that are answered at the same time. */
const TCP_PIPELINE = 16;
/** Answers that a client may leave unread before it is cut off. */
const TCP_UNREAD_BYTES = 1 << 20;

/** A question of a client, decoded as far as a resolver needs it. */
export interface ClientQuestion {
  readonly name: string;
  readonly type: 'A' | 'AAAA' | 'other';
  readonly clientIp: Ip;
}

/** One query and what came of it. */
export interface QueryReport {
  readonly name: string;
  /** `A`, `AAAA`, …, `other`. */
  readonly type: string;
  readonly protocol: 'udp' | 'tcp';
  readonly clientIp: Ip;
  readonly outcome: 'answered' | 'forwarded' | 'forward-failed' | 'unknown-client' | 'not-implemented';
  readonly durationMs: number;
  readonly error?: string;
}

export interface DnsOptions {
  /** Bound UDP sockets and listening TCP sockets; they become the server's, also when it fails to start. */
  readonly udp: readonly { readonly fd: number; readonly family: 4 | 6 }[];
  readonly tcp: readonly number[];
  /** Answers from the tables; `unknown-client` becomes SERVFAIL. */
  readonly resolve: (question: ClientQuestion) => NameAnswer | { readonly kind: 'unknown-client' };
  readonly forwarder: Forwarder;
  readonly logger: Logger;
  readonly onQuery?: (report: QueryReport) => void;
}

/** A running DNS server. */
export interface DnsServer extends AsyncDisposable {
  /** Where it listens, in the order of its sockets. */
  readonly udp: readonly HostPort[];
  readonly tcp: readonly HostPort[];
  /** Stops listening; queries under way still get their answers over TCP, not over UDP. */
  readonly close: () => Promise<void>;
}

/** Serves DNS on sockets that were made elsewhere, inside pods' namespaces. Whatever comes in, it goes on. */
export async function serveDns(options: DnsOptions): Promise<DnsServer> {
  const udp: Listener[] = [];
  const tcp: Listener[] = [];
  const unused = new Set([...options.udp.map(({ fd }) => fd), ...options.tcp]);
  const close = async (): Promise<void> => {
    await Promise.all([...udp, ...tcp].map((listener) => listener.close()));
  };
  try {
    for (const { fd, family } of options.udp) udp.push(await serveUdp(options, fd, family, unused));
    for (const fd of options.tcp) tcp.push(await serveTcp(options, fd, unused));
  } catch (error) {
    await close();
    for (const fd of unused) closeDescriptor(fd);
    throw error;
  }
  const addressOf = ({ address }: Listener): HostPort => address;
  return { udp: udp.map(addressOf), tcp: tcp.map(addressOf), close, [Symbol.asyncDispose]: close };
}

interface Listener {
  readonly address: HostPort;
  readonly close: () => Promise<void>;
}

async function serveUdp(
  options: DnsOptions,
  fd: number,
  family: 4 | 6,
  unused: Set<number>,
): Promise<Listener> {
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6');
  socket.on('message', (message, remote) => {
    void answerOverUdp(options, socket, message, remote);
  });
  unused.delete(fd);
  const listening = once(socket, 'listening'); // which comes at once with a descriptor
  socket.bind({ fd, exclusive: true });
  await listening;
  socket.on('error', (error) => options.logger.warn({ error: error.message }, 'dns socket failed'));
  const { address, port } = socket.address();
  return { address: { ip: parseIp(address), port }, close: async () => socket[Symbol.asyncDispose]() };
}

async function answerOverUdp(
  options: DnsOptions,
  socket: UdpSocket,
  message: Buffer,
  remote: RemoteInfo,
): Promise<void> {
  const response = await respond(options, message, 'udp', parseIp(remote.address));
  // The socket may have been closed meanwhile, and an answer that cannot be sent is the client's to repeat.
  if (response !== undefined) trySend(socket, response, remote);
}

function trySend(socket: UdpSocket, response: Buffer, remote: RemoteInfo): void {
  try {
    socket.send(response, remote.port, remote.address, () => undefined);
  } catch {
    return;
  }
}

async function serveTcp(options: DnsOptions, fd: number, unused: Set<number>): Promise<Listener> {
  const connections = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    connections.add(socket);
    socket.on('close', () => connections.delete(socket));
    void serveConnection(options, socket);
  });
  server.maxConnections = TCP_CONNECTIONS;
  unused.delete(fd);
  server.listen({ fd });
  await once(server, 'listening');
  server.on('error', (error) => options.logger.warn({ error: error.message }, 'dns listener failed'));
  return { address: addressOf(server), close: async () => closeListener(server, connections) };
}

function addressOf(server: Server): HostPort {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new TypeError('not a TCP listener');
  return { ip: parseIp(address.address), port: address.port };
}

async function closeListener(server: Server, connections: ReadonlySet<Socket>): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  for (const socket of connections) socket.setTimeout(1);
  await closed;
}

async function serveConnection(options: DnsOptions, socket: Socket): Promise<void> {
  socket.setTimeout(TCP_IDLE_MS, () => socket.destroy());
  socket.on('error', () => socket.destroy());
  const clientIp = parseIp(socket.remoteAddress ?? '::');
  const pending = new Set<Promise<void>>();
  try {
    for await (const message of readFramed(socket)) {
      const answered = answerOverTcp(options, socket, message, clientIp).finally(() =>
        pending.delete(answered),
      );
      pending.add(answered);
      if (pending.size >= TCP_PIPELINE) await Promise.race(pending);
    }
    await Promise.all(pending);
    socket.end();
  } catch {
    socket.destroy();
  }
}

async function answerOverTcp(
  options: DnsOptions,
  socket: Socket,
  message: Buffer,
  clientIp: Ip,
): Promise<void> {
  const response = await respond(options, message, 'tcp', clientIp);
  if (response === undefined) socket.destroy();
  else if (socket.writable) socket.write(framed(response));
  if (socket.writableLength > TCP_UNREAD_BYTES) socket.destroy();
}

/** The response to one message; undefined for what deserves none. Never throws. */
async function respond(
  options: DnsOptions,
  message: Buffer,
  protocol: 'udp' | 'tcp',
  clientIp: Ip,
): Promise<Buffer | undefined> {
  const incoming = readQuery(message);
  switch (incoming.kind) {
    case 'ignored':
      return undefined;
    case 'malformed':
      return encodeFormatError(message);
    case 'query': {
      const startedMs = performance.now();
      const { query } = incoming;
      const { response, outcome, error } = await answer(options, query, protocol, clientIp);
      options.onQuery?.({
        name: query.name,
        type: query.type,
        protocol,
        clientIp,
        outcome,
        durationMs: performance.now() - startedMs,
        ...(error === undefined ? {} : { error }),
      });
      return response;
    }
  }
}

interface Outcome {
  readonly response: Buffer;
  readonly outcome: QueryReport['outcome'];
  readonly error?: string;
}

async function answer(
  options: DnsOptions,
  query: DnsQuery,
  protocol: 'udp' | 'tcp',
  clientIp: Ip,
): Promise<Outcome> {
  if (!query.isStandard) return { response: encodeError(query, RCODE.NOTIMP), outcome: 'not-implemented' };
  const limit = protocol === 'tcp' ? TCP_PAYLOAD : payloadLimit(query);
  const type = query.type === 'A' || query.type === 'AAAA' ? query.type : 'other';
  const found = options.resolve({ name: query.name, type, clientIp });
  switch (found.kind) {
    case 'unknown-client':
      return { response: encodeError(query, RCODE.SERVFAIL), outcome: 'unknown-client' };
    case 'found': {
      const { addresses, alias } = found;
      const records = { addresses, ttlSeconds: TTL_SECONDS, ...(alias === undefined ? {} : { alias }) };
      return { response: encodeAnswer(query, records, limit), outcome: 'answered' };
    }
    case 'forward':
      return forward(options, query, protocol, limit);
  }
}

async function forward(
  { forwarder, logger }: DnsOptions,
  query: DnsQuery,
  protocol: 'udp' | 'tcp',
  limit: number,
): Promise<Outcome> {
  try {
    const response = relayResponse(query, await forwarder.forward(query, protocol), limit);
    return { response, outcome: 'forwarded' };
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    logger.debug({ name: query.name, error: text }, 'dns forwarding failed');
    return { response: encodeError(query, RCODE.SERVFAIL), outcome: 'forward-failed', error: text };
  }
}
