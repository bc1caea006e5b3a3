import type { Server } from 'node:net';
import type { HostPort } from '#api/address.ts';
import { LISTENER_SLOTS, type ListenerKind } from '#bpf/layout.ts';
import { type BpfListener, type BpfSockets, openBpfSockets } from './bpf-sockets.ts';

/** A server's listening socket in a pod, and the pod's namespace. */
export interface OwnListener {
  readonly server: Server;
  readonly fd: number;
  readonly cookie: bigint;
  readonly kind: ListenerKind;
}

export interface OwnSocketsOptions {
  /** Where the mesh's maps are pinned, or will be: `/sys/fs/bpf/tulle/MESH`. Absent: nowhere. */
  readonly directory?: string;
  /** Which of how many threads that listen: they share a pod's slots. Default: the only one. */
  readonly worker?: { readonly index: number; readonly count: number };
}

/**
 * The sockets that one thread makes in pods, as the programs in the kernel know them. Does nothing while there are none: they
 * may come after the ztunnel has started, or be made anew, and are then told of what listens already.
 */
export class OwnSockets {
  readonly #directory: string | undefined;
  readonly #slots: readonly number[];
  readonly #listeners = new Set<OwnListener>();
  #bpf: BpfSockets | undefined;

  constructor({ directory, worker = { index: 0, count: 1 } }: OwnSocketsOptions) {
    this.#directory = directory;
    this.#slots = slotsOf(worker);
  }

  /**
   * Opens the maps if they are there by now, or others are; and takes back the places that a process which was to replace this
   * one has left empty. To be called when a pod is added, and now and then.
   * @throws BpfError when they are another version's
   */
  look(): void {
    if (this.#directory === undefined) return;
    if (this.#bpf?.areCurrent() === true) {
      this.#registerAll((listener) => this.#bpf?.isRegistered(listener) === false);
      return;
    }
    const found = openBpfSockets(this.#directory);
    if (found === undefined) return;
    this.#bpf?.close();
    this.#bpf = found;
    this.#registerAll(() => true);
  }

  /** Marks a socket as the ztunnel's, before anything else is done with it. @throws BpfError */
  tag(fd: number, shown?: HostPort): void {
    this.#bpf?.tag(fd, shown);
  }

  /** Has what is captured in a pod led to that socket. It may have been made by another process. @throws BpfError */
  listen(listener: OwnListener): void {
    this.#forgetClosed();
    this.#listeners.add(listener);
    this.#register(listener);
  }

  /** Where a redirected connection was going, if the programs redirected it. @throws BpfError */
  originalDestination(fd: number): HostPort | undefined {
    return this.#bpf?.originalDestination(fd);
  }

  /** Whether a pod is captured by eBPF at this moment. @throws BpfError */
  captures(cookie: bigint | undefined): boolean {
    return cookie !== undefined && this.#bpf?.captures(cookie) === true;
  }

  close(): void {
    this.#bpf?.close();
    this.#bpf = undefined;
    this.#listeners.clear();
  }

  #registerAll(isWanted: (listener: BpfListener) => boolean): void {
    this.#forgetClosed();
    for (const listener of this.#listeners)
      if (isWanted({ ...listener, slots: this.#slots })) this.#register(listener);
  }

  #register({ fd, cookie, kind }: OwnListener): void {
    this.#bpf?.tag(fd);
    this.#bpf?.register({ fd, cookie, kind, slots: this.#slots });
  }

  /** Their descriptors may be others' by now. */
  #forgetClosed(): void {
    for (const each of this.#listeners) if (!each.server.listening) this.#listeners.delete(each);
  }
}

/** Every slot has exactly one worker, so that each connection is led to one, whichever slot it falls into. */
function slotsOf({ index, count }: { readonly index: number; readonly count: number }): readonly number[] {
  return Array.from({ length: LISTENER_SLOTS }, (_, slot) => slot).filter((slot) => slot % count === index);
}
