import { statSync } from 'node:fs';
import type { HostPort } from '#api/address.ts';
import { BpfError } from '#bpf/errors.ts';
import {
  ABI,
  encodeZtunnelSocket,
  type ListenerKind,
  listenerKey,
  MAPS,
  OFFSETS,
  podKey,
  readEndpoint,
  SIZES,
  writeEndpoint,
} from '#bpf/layout.ts';
import type { BpfMap } from '#bpf/maps.ts';
import { mapPath, pinnedVersions } from '#bpf/pins.ts';
import { hasCode } from './native.ts';
import { openMaps } from './pinned-maps.ts';

/**
 * The ztunnel's side of capture by eBPF: what it tells the programs in the kernel about its sockets, and asks them about
 * connections. One per thread; closed by whoever opened it.
 */
export interface BpfSockets {
  /**
   * Says that a socket is the ztunnel's own, before it is bound or connected.
   * @param shown whom the application at the other end is to see as its peer; undefined: the socket's own address
   * @throws BpfError
   */
  readonly tag: (fd: number, shown?: HostPort) => void;
  /** Has connections of a pod led to a listening socket; it is forgotten when it is closed. @throws BpfError */
  readonly register: (listener: BpfListener) => void;
  /** Whether connections of the pod are led to that socket, or another that has taken its place. @throws BpfError */
  readonly isRegistered: (listener: BpfListener) => boolean;
  /** Where an accepted connection was going that the programs redirected; undefined: they did not. @throws BpfError */
  readonly originalDestination: (fd: number) => HostPort | undefined;
  /** Whether the pod with that namespace is captured by eBPF, in whatever scope. @throws BpfError */
  readonly captures: (cookie: bigint) => boolean;
  /** Whether what is pinned there now is what was opened. */
  readonly areCurrent: () => boolean;
  readonly close: () => void;
}

/** A listening socket of one pod. */
export interface BpfListener {
  readonly fd: number;
  /** Of the pod's network namespace. */
  readonly cookie: bigint;
  readonly kind: ListenerKind;
  /** Which of the pod's slots of that kind it takes, from 0 to LISTENER_SLOTS - 1. */
  readonly slots: readonly number[];
}

/**
 * Opens what a node agent has pinned below a mesh's directory. Undefined when nothing, or not everything, is there yet.
 * @throws BpfError when only another version's is there; BpfUnsupportedError without libbpf
 */
export function openBpfSockets(directory: string): BpfSockets | undefined {
  const versions = pinnedVersions(directory);
  if (versions.length === 0) return undefined;
  if (!versions.includes(ABI)) throw otherVersions(directory, versions);
  const { pods, listeners, own, peers } = MAPS;
  try {
    const maps = openMaps(directory, { pods, listeners, own, peers });
    return { ...useMaps(maps), areCurrent: pinWatch(mapPath(directory, 'own')) };
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

type Maps = Readonly<Record<'pods' | 'listeners' | 'own' | 'peers', BpfMap>>;

/** Buffers are made once: two of these calls are made for each connection. */
function useMaps({ pods, listeners, own, peers }: Maps): Omit<BpfSockets, 'areCurrent'> {
  const descriptor = Buffer.alloc(SIZES.descriptor);
  const plainTag = encodeZtunnelSocket();
  const showingTag = encodeZtunnelSocket();
  const endpoint = Buffer.alloc(SIZES.endpoint);
  const pod = podKey(0n);
  const entry = Buffer.alloc(SIZES.pod);
  const socketValue = Buffer.alloc(SIZES.socket);
  return {
    tag: (fd, shown) => {
      descriptor.writeInt32LE(fd);
      if (shown !== undefined) writeEndpoint(showingTag, OFFSETS.ztunnel_socket.shown, shown);
      own.update(descriptor, shown === undefined ? plainTag : showingTag);
    },
    register: ({ fd, cookie, kind, slots }) => {
      socketValue.writeBigUInt64LE(BigInt(fd));
      for (const slot of slots) listeners.update(listenerKey(cookie, kind, slot), socketValue);
    },
    isRegistered: ({ cookie, kind, slots: [first] }) =>
      first === undefined || listeners.lookup(listenerKey(cookie, kind, first), socketValue),
    originalDestination: (fd) => {
      descriptor.writeInt32LE(fd);
      return peers.lookup(descriptor, endpoint) ? readEndpoint(endpoint, 0) : undefined;
    },
    captures: (cookie) => {
      pod.writeBigUInt64LE(cookie);
      return pods.lookup(pod, entry);
    },
    close: () => {
      for (const map of [pods, listeners, own, peers]) map.close();
    },
  };
}

/** A pin that is removed and made again is another file. */
function pinWatch(path: string): () => boolean {
  const numberOf = (): number | undefined => statSync(path, { throwIfNoEntry: false })?.ino;
  const opened = numberOf();
  return () => numberOf() === opened;
}

function otherVersions(directory: string, versions: readonly number[]): BpfError {
  const others = versions.map((version) => `v${version}`).join(', ');
  const message =
    `${directory} has eBPF maps of ${others}, and this ztunnel needs those of v${ABI}: ` +
    'run a node agent and a ztunnel of the same release';
  return new BpfError(message, { code: 'ABI_MISMATCH' });
}
