import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { type HostPort, parseIp } from '#api/address.ts';
import { PORT_DNS, PORT_INBOUND_PLAINTEXT, PORT_OUTBOUND } from '#ztunnel/capture/capture.ts';
import {
  bindUdp,
  closeDescriptor,
  listenInNamespace,
  openNamespace,
  type SocketTag,
  warmThreadPool,
} from '#ztunnel/capture/in-pod-sockets.ts';
import { OwnSockets, type OwnSocketsOptions } from '#ztunnel/capture/own-sockets.ts';
import { openPodSockets, type PodSockets } from '#ztunnel/pod-sockets.ts';

/** What a relay saw. */
export interface RelayedConnection {
  readonly direction: 'inbound' | 'outbound';
  readonly from: string;
  readonly to: HostPort;
}

/** A relay in one pod, in this process. */
export interface RelayInPod {
  /** Stops listening; connections go on. */
  readonly stop: () => void;
  /** Ends everything. */
  readonly close: () => void;
}

/**
 * The least that a ztunnel does: it takes what is captured in a pod and passes it on as it is, keeping the caller's
 * address on the way in; DNS queries, over UDP and TCP, get the answer `dns`; over TCP the client closes.
 * @param bpf where the mesh's eBPF maps are pinned, and which of how many relays of the pod it is
 */
export async function relayInPod(
  netnsPath: string,
  bpf: OwnSocketsOptions,
  onConnection: (connection: RelayedConnection) => void,
): Promise<RelayInPod> {
  await warmThreadPool();
  const netnsFd = openNamespace(netnsPath);
  const own = new OwnSockets(bpf);
  const pod = openPodSockets(netnsFd, { fabric: [] }, { name: netnsPath, own });
  const open = new Set<net.Socket>();
  const take = (direction: RelayedConnection['direction'], socket: net.Socket): void => {
    const from = { ip: parseIp(socket.remoteAddress ?? ''), port: socket.remotePort ?? 0 };
    const to = pod.originalDestination(socket) ?? {
      ip: parseIp(socket.localAddress ?? ''),
      port: socket.localPort ?? 0,
    };
    if (to.port === PORT_OUTBOUND || to.port === PORT_INBOUND_PLAINTEXT) {
      socket.destroy(); // nobody has captured it
      return;
    }
    onConnection({ direction, from: from.ip, to });
    join(open, socket, direction === 'inbound' ? pod.dial(to, from) : pod.dialOutside(to));
  };
  const servers = [
    await listen(pod, PORT_OUTBOUND, (socket) => take('outbound', socket)),
    await listen(pod, PORT_INBOUND_PLAINTEXT, (socket) => take('inbound', socket)),
  ];
  const closeDns = answerDns(netnsFd, (fd) => own.tag(fd));
  const stop = (): void => {
    for (const server of servers.splice(0)) server.close();
    closeDns();
  };
  return {
    stop,
    close: () => {
      stop();
      for (const socket of open) socket.destroy();
      own.close();
      closeDescriptor(netnsFd);
    },
  };
}

function join(open: Set<net.Socket>, one: net.Socket, other: net.Socket): void {
  const close = (): void => {
    for (const end of [one, other]) end.destroy();
  };
  for (const end of [one, other]) {
    open.add(end);
    end.on('error', close).on('close', () => open.delete(end) && close());
  }
  one.pipe(other).pipe(one);
}

async function listen(
  pod: PodSockets,
  port: number,
  take: (socket: net.Socket) => void,
): Promise<net.Server> {
  const server = net.createServer({ allowHalfOpen: true }, take);
  pod.listen(server, port);
  await once(server, 'listening');
  return server;
}

/** As a busy resolver does: it ends after the client, and once the kernel has acknowledged the client's end by itself. */
function answerConnection(socket: net.Socket): void {
  socket.on('error', () => undefined).on('end', () => setTimeout(() => socket.end(), BUSY_MS));
  socket.resume().write('dns');
}

/** Longer than the kernel keeps an acknowledgement back (TCP_DELACK_MIN is 40 ms, TCP_DELACK_MAX 200 ms). */
const BUSY_MS = 250;

/** On both loopback addresses. */
function answerDns(netnsFd: number, tag: SocketTag): () => void {
  const closing: (() => void)[] = [];
  for (const [ip, type] of [
    ['127.0.0.1', 'udp4'],
    ['::1', 'udp6'],
  ] as const) {
    const udp = dgram.createSocket(type);
    udp.on('message', (_query, { port, address }) => udp.send('dns', port, address));
    udp.bind({ fd: bindUdp(netnsFd, { ip, port: PORT_DNS }, tag) });
    const tcp = net.createServer({ allowHalfOpen: true }, answerConnection);
    tcp.listen({
      fd: listenInNamespace(netnsFd, { ip, port: PORT_DNS, transparent: false, backlog: 128, tag }),
    });
    closing.push(
      () => udp.close(),
      () => tcp.close(),
    );
  }
  return () => {
    for (const close of closing.splice(0)) close();
  };
}
