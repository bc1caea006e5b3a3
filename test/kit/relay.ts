import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { familyOf, type HostPort, parseIp } from '#api/address.ts';
import { PORT_DNS, PORT_INBOUND_PLAINTEXT, PORT_OUTBOUND } from '#ztunnel/capture/capture.ts';
import {
  bindUdp,
  closeDescriptor,
  dialSocket,
  listenInNamespace,
  openNamespace,
  originalDestination,
  warmThreadPool,
} from '#ztunnel/capture/in-pod-sockets.ts';

/** What a relay saw. */
export interface RelayedConnection {
  readonly direction: 'inbound' | 'outbound';
  readonly from: string;
  readonly to: HostPort;
}

/**
 * The least that a ztunnel does: it takes what is captured in a pod and passes it on as it is, keeping the caller's
 * address on the way in; DNS queries get the answer `dns`.
 */
export interface Relay extends AsyncDisposable {
  readonly connections: readonly RelayedConnection[];
  /** Stops listening; connections go on. */
  readonly stop: () => void;
}

/** Starts to relay in the namespace at that path. */
export async function startRelay(netnsPath: string): Promise<Relay> {
  await warmThreadPool();
  const netnsFd = openNamespace(netnsPath);
  const connections: RelayedConnection[] = [];
  const sockets = new Set<net.Socket>();
  const take = (direction: RelayedConnection['direction'], socket: net.Socket): void => {
    const from = parseIp(socket.remoteAddress ?? '');
    const to = originalDestination(descriptorOf(socket));
    if (to === undefined) {
      socket.destroy();
      return;
    }
    connections.push({ direction, from, to });
    const out = dial(netnsFd, to, direction === 'inbound' ? from : undefined);
    const close = (): void => {
      for (const end of [socket, out]) end.destroy();
    };
    for (const end of [socket, out]) {
      sockets.add(end);
      end.on('error', close).on('close', () => sockets.delete(end) && close());
    }
    socket.pipe(out).pipe(socket);
  };
  const servers = [
    await listen(netnsFd, PORT_OUTBOUND, (socket) => take('outbound', socket)),
    await listen(netnsFd, PORT_INBOUND_PLAINTEXT, (socket) => take('inbound', socket)),
  ];
  const dns = dgram.createSocket('udp4');
  dns.on('message', (_query, { port, address }) => dns.send('dns', port, address));
  dns.bind({ fd: bindUdp(netnsFd, { ip: '127.0.0.1', port: PORT_DNS }) });
  let listening = true;
  const stop = (): void => {
    if (!listening) return;
    listening = false;
    for (const server of servers) server.close();
    dns.close();
  };
  return {
    connections,
    stop,
    [Symbol.asyncDispose]: async () => {
      stop();
      for (const socket of sockets) socket.destroy();
      closeDescriptor(netnsFd);
    },
  };
}

async function listen(
  netnsFd: number,
  port: number,
  take: (socket: net.Socket) => void,
): Promise<net.Server> {
  const server = net.createServer({ allowHalfOpen: true }, take);
  server.listen({ fd: listenInNamespace(netnsFd, { ip: '::', port, transparent: true, backlog: 128 }) });
  await once(server, 'listening');
  return server;
}

function dial(netnsFd: number, to: HostPort, sourceIp: string | undefined): net.Socket {
  const family = familyOf(to.ip);
  const fd = dialSocket(netnsFd, sourceIp === undefined ? { family } : { family, sourceIp });
  const socket = new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
  return socket.connect({ host: to.ip, port: to.port });
}

function descriptorOf(socket: net.Socket): number {
  return (socket as unknown as { readonly _handle: { readonly fd: number } })._handle.fd;
}
