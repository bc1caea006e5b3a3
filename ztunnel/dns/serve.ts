import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type HostPort, type Ip, parseIp } from '#api/address.ts';
import { closeDescriptor } from '../capture/in-pod-sockets.ts';
import { hasCode, SOCKADDR_SIZE, sys, writeSockaddr } from '../capture/native.ts';
import { duplicate, sendDatagram } from '../hand-over/descriptors.ts';
import { framed, readFramed } from './framing.ts';
import { type Responder, respond } from './respond.ts';

const TCP_IDLE_MS = 10_000;
/** For connections that are there when the server closes. */
const TCP_LAST_IDLE_MS = 100;
const TCP_CONNECTIONS = 128;
/** Queries of one TCP connection that are answered at the same time. */
const TCP_PIPELINE = 16;
/** Answers that a client may leave unread before it is cut off. */
const TCP_UNREAD_BYTES = 1 << 20;

export interface DnsOptions extends Responder {
  /** Bound UDP sockets and listening TCP sockets; they become the server's, also when it fails to start. */
  readonly udp: readonly { readonly fd: number; readonly family: 4 | 6 }[];
  readonly tcp: readonly number[];
}

/** A running DNS server. */
export interface DnsServer extends AsyncDisposable {
  /** Where it listens, in the order of its sockets. */
  readonly udp: readonly HostPort[];
  readonly tcp: readonly HostPort[];
  /** Its sockets, as they were given; closed with the server. */
  readonly descriptors: readonly number[];
  /**
   * Takes no more queries, so that they reach who else listens on the ports; resolves when those under way are answered.
   * Sockets that another process has, too, are let go of as they are: with all that waits in them they are the other's.
   */
  readonly close: (sockets?: { readonly shared: boolean }) => Promise<void>;
}

/** Serves DNS on sockets that were made elsewhere, inside pods' namespaces. Whatever comes in, it goes on. */
export async function serveDns(options: DnsOptions): Promise<DnsServer> {
  const udp: Listener[] = [];
  const tcp: Listener[] = [];
  const unused = new Set([...options.udp.map(({ fd }) => fd), ...options.tcp]);
  const close: DnsServer['close'] = async ({ shared } = { shared: false }) => {
    await Promise.all([...udp, ...tcp].map((listener) => listener.close(shared)));
  };
  const descriptors = [...unused];
  try {
    for (const { fd, family } of options.udp) udp.push(await serveUdp(options, fd, family, unused));
    for (const fd of options.tcp) tcp.push(await serveTcp(options, fd, unused));
  } catch (error) {
    await close();
    for (const fd of unused) closeDescriptor(fd);
    throw error;
  }
  const addressOf = ({ address }: Listener): HostPort => address;
  return {
    udp: udp.map(addressOf),
    tcp: tcp.map(addressOf),
    descriptors,
    close,
    [Symbol.asyncDispose]: () => close(),
  };
}

interface Listener {
  readonly address: HostPort;
  readonly close: (shared: boolean) => Promise<void>;
}

async function serveUdp(
  options: DnsOptions,
  fd: number,
  family: 4 | 6,
  unused: Set<number>,
): Promise<Listener> {
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6');
  const pending = new Set<Promise<void>>();
  /** Where answers leave once the socket is let go of. */
  let lastFd: number | undefined;
  const send: Send = async (response, remote) => {
    if (lastFd === undefined) return sendFrom(socket, response, remote);
    sendDatagram(lastFd, response, { ip: clientIpOf(remote.address), port: remote.port });
  };
  socket.on('message', (message, remote) => {
    if (remote.port === 0) return; // nobody can be answered there
    const answered = answerOverUdp(options, message, remote, send).finally(() => pending.delete(answered));
    pending.add(answered);
  });
  unused.delete(fd);
  const listening = once(socket, 'listening'); // which comes at once with a descriptor
  socket.bind({ fd, exclusive: true });
  await listening;
  socket.on('error', (error) => options.logger.warn({ error: error.message }, 'dns socket failed'));
  const { address, port } = socket.address();
  return {
    address: { ip: parseIp(address), port },
    close: async (shared) => {
      if (shared) lastFd = duplicateIfPossible(fd);
      else stopReceiving(fd, family);
      for (let turn = 0; turn < LAST_TURNS; turn++) await nextTurn();
      if (lastFd !== undefined) socket.close();
      await Promise.all(pending);
      if (lastFd === undefined) await socket[Symbol.asyncDispose]();
      else closeDescriptor(lastFd);
    },
  };
}

/** Undefined when all descriptors are in use: then queries are taken until those under way are answered. */
function duplicateIfPossible(fd: number): number | undefined {
  try {
    return duplicate(fd);
  } catch (error) {
    if (hasCode(error, 'EMFILE')) return undefined;
    throw error;
  }
}

/** Turns in which what waits in a socket is read, 32 messages in each, and what was given to it is sent. */
const LAST_TURNS = 4;

type Send = (response: Buffer, remote: RemoteInfo) => Promise<void>;

const DISCARD_PORT = 9;

/**
 * Connects a UDP socket to where nothing comes from: the kernel then hands new messages to other sockets on the port, of a
 * successor for one, while what is being answered can still be sent.
 */
function stopReceiving(fd: number, family: 4 | 6): void {
  const address = Buffer.alloc(SOCKADDR_SIZE[6]);
  sys.connect(fd, address, writeSockaddr(address, family === 4 ? '127.0.0.1' : '::1', DISCARD_PORT));
}

async function answerOverUdp(
  options: DnsOptions,
  message: Buffer,
  remote: RemoteInfo,
  send: Send,
): Promise<void> {
  const response = await respond(options, message, 'udp', clientIpOf(remote.address));
  if (response !== undefined) await send(response, remote);
}

/** Resolves when the answer is out. One that cannot be sent is the client's to ask for again. */
async function sendFrom(socket: UdpSocket, response: Buffer, { port, address }: RemoteInfo): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.send(response, port, address, () => resolve());
  await promise;
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
  for (const socket of connections) socket.setTimeout(TCP_LAST_IDLE_MS);
  await closed;
}

async function serveConnection(options: DnsOptions, socket: Socket): Promise<void> {
  socket.setTimeout(TCP_IDLE_MS, () => socket.destroy());
  socket.on('error', () => socket.destroy());
  const clientIp = clientIpOf(socket.remoteAddress ?? '::');
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

/** Without the interface that a link-local address names. */
function clientIpOf(address: string): Ip {
  return parseIp(address.replace(/%.*$/, ''));
}
