import { createSocket } from 'node:dgram';
import net from 'node:net';
import packet from 'dns-packet';
import type { HostPort } from '#api/address.ts';
import {
  bindUdp,
  closeDescriptor,
  listenInNamespace,
  openNamespace,
} from '#ztunnel/capture/in-pod-sockets.ts';
import { framed, readFramed } from '#ztunnel/dns/framing.ts';
import type { Netns } from './netns.ts';

/** A name server over UDP and TCP. */
export interface NameServer extends AsyncDisposable {
  readonly address: HostPort;
}

/** Starts one in a namespace, at one of its IPv4 addresses, that answers every question with no records. */
export function startNameServer(netns: Netns, ip: string): NameServer {
  const netnsFd = openNamespace(netns.path);
  const address = { ip, port: 5300 };
  const udp = createSocket('udp4').bind({ fd: bindUdp(netnsFd, address) });
  udp.on('message', (query, from) => udp.send(answerTo(query), from.port, from.address));
  const tcp = net.createServer((socket) => {
    socket.on('error', () => undefined);
    void serve(socket);
  });
  tcp.listen({ fd: listenInNamespace(netnsFd, { ...address, transparent: false, backlog: 16 }) });
  closeDescriptor(netnsFd);
  return {
    address,
    [Symbol.asyncDispose]: async () => {
      udp.close();
      tcp.close();
    },
  };
}

async function serve(socket: net.Socket): Promise<void> {
  for await (const query of readFramed(socket)) socket.end(framed(answerTo(query)));
}

function answerTo(query: Buffer): Buffer {
  return packet.encode({ ...packet.decode(query), type: 'response' });
}
