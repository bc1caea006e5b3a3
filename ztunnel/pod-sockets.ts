import { type Server, Socket, type SocketConstructorOpts } from 'node:net';
import type { DuplexOptions } from 'node:stream';
import { type Cidr, cidrContains, familyOf, formatHostPort, type HostPort, type Ip } from '#api/address.ts';
import type { ListenerKind } from '#bpf/layout.ts';
import { PORT_HBONE, PORT_INBOUND_PLAINTEXT, PORT_OUTBOUND } from './capture/capture.ts';
import {
  closeDescriptor,
  type DialSource,
  dialSocket,
  isLocalAddress,
  listenInNamespace,
  originalDestination,
  type SocketTag,
} from './capture/in-pod-sockets.ts';
import { hasCode, namespaceCookie } from './capture/native.ts';
import { OwnSockets } from './capture/own-sockets.ts';
import { nextSourcePort } from './capture/source-port.ts';
import { type Attempt, explainExhaustion } from './exhausted.ts';

/** Sockets of one pod: made in its network namespace, used here. */
export interface PodSockets {
  /**
   * Has a server listen on a port of all the pod's addresses.
   * @param fd a socket that listens there already, and becomes the server's, or is closed; absent: one is made
   * @throws NativeError or BpfError when it cannot
   */
  readonly listen: (server: Server, port: number, fd?: number) => void;
  /** Where a captured connection was going; undefined when nobody has captured it. */
  readonly originalDestination: (socket: Socket) => HostPort | undefined;
  /**
   * A socket that is connecting to the pod's own application, which is to see that caller as its peer. Port 0: the caller's
   * is not known. Only capture by eBPF shows the caller's; with packet rules it is one of ours.
   * @throws ExhaustedError, which the socket's error may be as well; NativeError, BpfError
   */
  readonly dial: (to: HostPort, caller?: HostPort) => Socket;
  /** The pod's namespace, if programs in the kernel may have its connections; undefined: they cannot tell namespaces apart. */
  readonly cookie?: bigint;
  /** Whether they have them, at this moment. @throws BpfError */
  readonly isInKernel?: () => boolean;
  /** Whether the address is the pod's own; one that was stays it. */
  readonly hasAddress: (ip: Ip) => boolean;
  /**
   * A socket that is connecting to another pod, or out of the mesh: that from the egress namespace, where there is one.
   * @throws EgressError for an address of that namespace itself, and as `dial` does
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

/** What the sockets of a pod have in common with others of the thread. */
export interface PodSocketsOptions {
  /** Who makes them, for messages: `pod shop/web`. */
  readonly name?: string;
  /** What the programs in the kernel are told of them by; default: nothing. */
  readonly own?: OwnSockets;
}

/**
 * The sockets of the pod whose namespace it is. The descriptors stay the caller's, and open as long as sockets are made.
 * @throws BpfError when the pod may be captured by eBPF of another version
 */
export function openPodSockets(
  netnsFd: number,
  egress: Egress,
  { name = 'the pod', own = new OwnSockets({}) }: PodSocketsOptions = {},
): PodSockets {
  own.look();
  const cookie = cookieOf(netnsFd);
  const addresses = new Set<Ip>();
  const tag: SocketTag = (fd) => own.tag(fd);
  const dialOut = (to: HostPort): Socket =>
    dial({ from: name, netnsFd, to }, { tag }).setKeepAlive(true, KEEPALIVE_MS);
  return {
    ...(cookie !== undefined && { cookie }),
    isInKernel: () => own.captures(cookie),
    listen: (server, port, given) => {
      const fd = given ?? listenOn(netnsFd, port, tag);
      const kind = KINDS.get(port);
      try {
        if (kind !== undefined && cookie !== undefined) own.listen({ server, fd, cookie, kind });
      } catch (error) {
        closeDescriptor(fd);
        throw error;
      }
      server.listen({ fd, backlog: BACKLOG });
    },
    originalDestination: (socket) => {
      const fd = descriptorOf(socket);
      return fd === undefined ? undefined : (own.originalDestination(fd) ?? originalDestination(fd));
    },
    dial: (to, caller) => {
      const attempt = { from: name, netnsFd, to };
      if (caller === undefined) return dial(attempt, { tag });
      if (!own.captures(cookie)) return dial(attempt, { tag, source: { kind: 'foreign', ip: caller.ip } });
      const shown = caller.port === 0 ? { ip: caller.ip, port: nextSourcePort() } : caller;
      const source: DialSource = { kind: 'local', ip: familyOf(to.ip) === 4 ? ALIAS_4 : to.ip };
      return dial(attempt, { tag: (fd) => own.tag(fd, shown), source });
    },
    hasAddress: (ip) => {
      if (!addresses.has(ip) && isLocalAddress(netnsFd, ip)) addresses.add(ip);
      return addresses.has(ip);
    },
    dialOutside: (to) => {
      if (egress.netnsFd === undefined || egress.fabric.some((cidr) => cidrContains(cidr, to.ip))) {
        return dialOut(to);
      }
      if (isLocalAddress(egress.netnsFd, to.ip)) {
        throw new EgressError(`${formatHostPort(to)} belongs to the egress namespace itself`);
      }
      const attempt = { from: 'the egress namespace', netnsFd: egress.netnsFd, to };
      return dial(attempt, {}).setKeepAlive(true, KEEPALIVE_MS);
    },
  };
}

const KINDS: ReadonlyMap<number, ListenerKind> = new Map([
  [PORT_OUTBOUND, 'outbound'],
  [PORT_INBOUND_PLAINTEXT, 'inbound'],
  [PORT_HBONE, 'hbone'],
]);

/**
 * Whence the ztunnel dials an application that is shown somebody else: the programs let what comes from there pass. Over
 * IPv6 that is the application's own address: the kernel sends the reset of a closed port out of the device that the address
 * is on, where ::1 is nowhere.
 */
const ALIAS_4 = '127.0.0.6';

function dial(
  { from, netnsFd, to }: Attempt,
  { tag, source }: { readonly tag?: SocketTag; readonly source?: DialSource },
): Socket {
  const sourceIp = source === undefined ? {} : { sourceIp: source.ip };
  const explain = (error: Error): Error => explainExhaustion(error, { from, netnsFd, to, ...sourceIp });
  let fd: number;
  try {
    fd = dialSocket(netnsFd, { family: familyOf(to.ip), ...(tag && { tag }), ...(source && { source }) });
  } catch (error) {
    throw error instanceof Error ? explain(error) : error;
  }
  const socket = new DialledSocket(fd, explain);
  socket.connect({ host: to.ip, port: to.port });
  return socket.setNoDelay(true);
}

/** Its error says what has run out, if something has. */
class DialledSocket extends Socket {
  readonly #explain: (error: Error) => Error;

  constructor(fd: number, explain: (error: Error) => Error) {
    super({ fd, ...SOCKET_OPTIONS });
    this.#explain = explain;
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    super._destroy(error, (cause) => callback(cause ? this.#explain(cause) : cause));
  }
}

/** IPv4 alone where the kernel has no IPv6. */
function listenOn(netnsFd: number, port: number, tag: SocketTag): number {
  const options = { port, transparent: false, backlog: BACKLOG, tag };
  try {
    return listenInNamespace(netnsFd, { ip: '::', ...options });
  } catch (error) {
    if (!hasCode(error, 'EAFNOSUPPORT') && !hasCode(error, 'EADDRNOTAVAIL')) throw error;
    return listenInNamespace(netnsFd, { ip: '0.0.0.0', ...options });
  }
}

/** Node.js has no public way to a socket's or server's descriptor; undefined when it is closed. */
export function descriptorOf(of: Socket | Server): number | undefined {
  const { _handle: handle } = of as typeof of & { readonly _handle?: { readonly fd?: number } | null };
  return handle?.fd !== undefined && handle.fd >= 0 ? handle.fd : undefined;
}

/** Undefined where the kernel has none to tell; then nothing is captured by eBPF either. */
function cookieOf(netnsFd: number): bigint | undefined {
  try {
    return namespaceCookie(netnsFd);
  } catch (error) {
    if (hasCode(error, 'ENOPROTOOPT')) return undefined;
    throw error;
  }
}
