import { type Server, Socket, type SocketConstructorOpts } from 'node:net';
import type { DuplexOptions } from 'node:stream';
import { type Cidr, cidrContains, familyOf, formatHostPort, type HostPort, type Ip } from '#api/address.ts';
import {
  dialSocket,
  isLocalAddress,
  listenInNamespace,
  originalDestination,
} from './capture/in-pod-sockets.ts';
import { hasCode } from './capture/native.ts';

/** Sockets of one pod: made in its network namespace, used here. */
export interface PodSockets {
  /**
   * Has a server listen on a port of all the pod's addresses.
   * @param fd a socket that listens there already, and becomes the server's; absent: one is made
   * @throws NativeError when it cannot
   */
  readonly listen: (server: Server, port: number, fd?: number) => void;
  /** Where a captured connection was going; undefined when nobody has captured it. */
  readonly originalDestination: (socket: Socket) => HostPort | undefined;
  /**
   * A socket that is connecting to the pod's own application, which is to see that caller as its peer. Port 0: the caller's
   * is not known.
   */
  readonly dial: (to: HostPort, caller?: HostPort) => Socket;
  /** Whether the address is the pod's own; one that was stays it. */
  readonly hasAddress: (ip: Ip) => boolean;
  /**
   * A socket that is connecting to another pod, or out of the mesh: that from the egress namespace, where there is one.
   * @throws EgressError for an address of that namespace itself
   */
  readonly dialOutside: (to: HostPort) => Socket;
}

/** An application wanted to get at the egress namespace itself. */
export class EgressError extends Error {
  override readonly name = 'EgressError';
  readonly code = 'LOCAL_TO_EGRESS';
}

/** Where connections that leave the mesh start. */
export interface Egress {
  /** Absent: in each pod. */
  readonly netnsFd?: number;
  /** Destinations that are dialled from the pod all the same. */
  readonly fabric: readonly Cidr[];
}

/** Bytes that a socket may have waiting on the way out before its source is paused. */
export const SOCKET_BUFFER_BYTES: number = 512 * 1024;
/** The types know of no size of buffers for sockets; every stream has one. */
const SOCKET_OPTIONS: SocketConstructorOpts & DuplexOptions = {
  allowHalfOpen: true,
  highWaterMark: SOCKET_BUFFER_BYTES,
};
const BACKLOG = 4096;
const KEEPALIVE_MS = 180_000;

/** The sockets of the pod whose namespace it is. The descriptors stay the caller's, and open as long as sockets are made. */
export function openPodSockets(netnsFd: number, egress: Egress): PodSockets {
  const dial = (from: number | undefined, to: HostPort, sourceIp?: Ip): Socket => {
    const source = sourceIp === undefined ? {} : { sourceIp };
    const fd = dialSocket(from, { family: familyOf(to.ip), ...source });
    const socket = new Socket({ fd, ...SOCKET_OPTIONS });
    socket.connect({ host: to.ip, port: to.port });
    socket.setNoDelay(true);
    return socket;
  };
  const addresses = new Set<Ip>();
  const dialFar = (from: number | undefined, to: HostPort): Socket =>
    dial(from, to).setKeepAlive(true, KEEPALIVE_MS);
  return {
    listen: (server, port, fd) => {
      server.listen({ fd: fd ?? listenOn(netnsFd, port), backlog: BACKLOG });
    },
    originalDestination: (socket) => {
      const fd = descriptorOf(socket);
      return fd === undefined ? undefined : originalDestination(fd);
    },
    dial: (to, caller) => dial(netnsFd, to, caller?.ip),
    hasAddress: (ip) => {
      if (!addresses.has(ip) && isLocalAddress(netnsFd, ip)) addresses.add(ip);
      return addresses.has(ip);
    },
    dialOutside: (to) => {
      if (egress.netnsFd === undefined || egress.fabric.some((cidr) => cidrContains(cidr, to.ip))) {
        return dialFar(netnsFd, to);
      }
      if (isLocalAddress(egress.netnsFd, to.ip)) {
        throw new EgressError(`${formatHostPort(to)} belongs to the egress namespace itself`);
      }
      return dialFar(egress.netnsFd, to);
    },
  };
}

/** IPv4 alone where the kernel has no IPv6. */
function listenOn(netnsFd: number, port: number): number {
  const options = { port, transparent: false, backlog: BACKLOG };
  try {
    return listenInNamespace(netnsFd, { ip: '::', ...options });
  } catch (error) {
    if (!hasCode(error, 'EAFNOSUPPORT') && !hasCode(error, 'EADDRNOTAVAIL')) throw error;
    return listenInNamespace(netnsFd, { ip: '0.0.0.0', ...options });
  }
}

/** Node.js has no public way to a socket's descriptor. */
function descriptorOf(socket: Socket): number | undefined {
  const { _handle: handle } = socket as Socket & { readonly _handle?: { readonly fd?: number } | null };
  return handle?.fd;
}
