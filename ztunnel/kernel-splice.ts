import type { Socket } from 'node:net';
import { BpfError, BpfUnsupportedError } from '#bpf/errors.ts';
import { podKey, SIZES } from '#bpf/layout.ts';
import type { BpfMap } from '#bpf/maps.ts';
import {
  SPLICE_MAPS,
  SPLICE_OFFSETS,
  SPLICE_QUEUE,
  SPLICE_SIZES,
  senderKey,
  targetKey,
} from '#bpf/splice-layout.ts';
import { NativeError } from './capture/native.ts';
import { openMaps } from './capture/pinned-maps.ts';
import { forceSendBuffer, socketCookie } from './capture/tcp-socket.ts';
import { localOf, remoteOf } from './data-path.ts';
import { descriptorOf } from './pod-sockets.ts';

/**
 * The ztunnel's side of the kernel splice (bpf/splice.bpf.c): which pods take part, which of its sockets belong together, and
 * how much of what it has read from one has been written into the other. The bytes themselves stay in the kernel from the
 * moment at which that is all that was sent.
 */

/** An application's connection with the ztunnel. */
export interface SpliceEnd {
  /** The ztunnel's socket; it is connected. */
  readonly socket: Socket;
  /** Of the namespace of the application's pod. */
  readonly cookie: bigint;
}

/** Bytes of one application on their way to the other. */
export interface SpliceDirection {
  /** So many bytes have been read from the one and are in the kernel's queue to the other: all that were read so far. */
  readonly flushed: (bytes: number) => void;
  /** Bytes that went past the ztunnel, so far; after `close`, in the end. */
  readonly redirected: () => number;
  /** Forgets it; twice is harmless. To be called when the socket that it goes to has been closed. */
  readonly close: () => void;
}

const { splice_pods, splice_senders, splice_targets, splices, splice_counts } = SPLICE_MAPS;
const NEEDED = { splice_pods, splice_senders, splice_targets, splices, splice_counts };

type Maps = Readonly<Record<keyof typeof NEEDED, BpfMap>>;

/** One per thread, as long as that. Where a node agent has not installed the programs, nothing is ever spliced. */
export class KernelSplice {
  readonly #directory: string | undefined;
  /** What has been said. */
  readonly #pods = new Map<bigint, boolean>();
  #maps: Maps | undefined;

  /** @param directory where the mesh's maps are pinned, or will be: `/sys/fs/bpf/tulle/MESH`; undefined: nowhere */
  constructor(directory: string | undefined) {
    this.#directory = directory;
  }

  /**
   * Says of all pods that are served whether their connections can be spliced: those that are made from now on. Whoever
   * served them before may have said something else.
   * @param pods by the cookies of their namespaces
   */
  watch(pods: ReadonlyMap<bigint, boolean>): void {
    this.#look();
    if (this.#maps === undefined) return;
    for (const [cookie, isWanted] of pods)
      if (this.#pods.get(cookie) !== isWanted) this.#say(this.#maps, cookie, isWanted);
    for (const cookie of [...this.#pods.keys()].filter((each) => !pods.has(each))) {
      this.#say(this.#maps, cookie, false);
      this.#pods.delete(cookie);
    }
  }

  /**
   * Lets bytes of an application's go from one socket of the ztunnel's into another. Undefined where that is not possible.
   * @param from nothing has been read from it
   * @param to nothing has been written into it
   */
  open(from: SpliceEnd, to: Socket): SpliceDirection | undefined {
    const maps = this.#maps;
    const application = remoteOf(from.socket);
    const ztunnel = localOf(from.socket);
    const fd = descriptorOf(to);
    if (maps === undefined || fd === undefined || application === undefined || ztunnel === undefined)
      return undefined;
    return attempt(() => openDirection(maps, senderKey(from.cookie, application, ztunnel), fd));
  }

  /** Splices nothing more. */
  close(): void {
    for (const map of Object.values(this.#maps ?? {})) map.close();
    this.#maps = undefined;
  }

  #say({ splice_pods: pods }: Maps, cookie: bigint, isWanted: boolean): void {
    attempt(() => {
      if (isWanted) pods.update(podKey(cookie), Buffer.alloc(SPLICE_MAPS.splice_pods.value, 1));
      else pods.delete(podKey(cookie));
      this.#pods.set(cookie, isWanted);
    });
  }

  /** The node agent may have come after us. */
  #look(): void {
    if (this.#maps !== undefined || this.#directory === undefined) return;
    const directory = this.#directory;
    this.#maps = attempt(() => openMaps(directory, NEEDED));
  }
}

/**
 * The sender's entry comes last: from then on the programs may act. It is that of the very socket, which the programs have found by
 * its ends: what is left of one that was there before it, with the same ends, is not its.
 */
function openDirection(maps: Maps, ends: Buffer, fd: number): SpliceDirection | undefined {
  const { splice_senders: senders, splice_targets: targets, splices, splice_counts: counts } = maps;
  const sender = Buffer.alloc(SIZES.cookie);
  if (!senders.lookup(ends, sender)) return undefined;
  const cookie = socketCookie(fd);
  const target = targetKey(cookie);
  const socket = Buffer.alloc(SIZES.socket);
  socket.writeBigUInt64LE(BigInt(fd));
  const state = Buffer.alloc(SPLICE_SIZES.splice);
  state.writeBigUInt64LE(cookie, SPLICE_OFFSETS.splice.target);
  forceSendBuffer(fd, SPLICE_QUEUE);
  // The kernel takes none that has ended one way already.
  targets.update(target, socket);
  counts.update(target, Buffer.alloc(SPLICE_SIZES.spliceCounts));
  splices.update(sender, state);

  let isOpen = true;
  let redirected = 0;
  const read = (): number => {
    const value = Buffer.alloc(SPLICE_SIZES.spliceCounts);
    const isThere = isOpen && attempt(() => counts.lookup(target, value)) === true;
    if (isThere) redirected = Number(value.readBigUInt64LE(SPLICE_OFFSETS.splice_counts.redirected));
    return redirected;
  };
  return {
    flushed: (bytes) => {
      if (!isOpen) return;
      state.writeBigUInt64LE(BigInt(bytes), SPLICE_OFFSETS.splice.flushed);
      attempt(() => splices.update(sender, state));
    },
    redirected: read,
    close: () => {
      read();
      if (!isOpen) return;
      isOpen = false;
      attempt(() => splices.delete(sender));
      attempt(() => counts.delete(target));
    },
  };
}

/** Whatever the kernel has against it: then the bytes go through the ztunnel, as they would anyway. */
function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (error instanceof BpfError || error instanceof BpfUnsupportedError || error instanceof NativeError)
      return undefined;
    throw error;
  }
}
