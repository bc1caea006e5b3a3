import { closeDescriptor, namespaceId } from '../capture/in-pod-sockets.ts';
import { NativeError } from '../capture/native.ts';
import { describeSocket, namespaceOfSocket, takeDescriptor } from './descriptors.ts';
import type { ListeningSocket } from './offer.ts';

/** Sockets of another process that can be taken as long as it lives and has them open. */
export interface OfferedSockets {
  /** Stands for the process; open until all are taken. */
  readonly pidfd: number;
  readonly sockets: readonly ListeningSocket[];
}

/** What became of an offered socket. */
export type Taken =
  /** This process's own descriptor of it, which the caller closes or has closed. */
  { readonly kind: 'taken'; readonly fd: number } | { readonly kind: 'left'; readonly reason: string };

/** Sockets that are shared with their process, and not yet anybody's here. */
export class SharedSockets {
  /** Why the others have not been taken. */
  readonly left: readonly string[];
  readonly #taken: ListeningSocket[] = [];

  /** Takes what there is, if anything is offered. @param netnsFd where they have to be */
  constructor(netnsFd: number, offered: OfferedSockets | undefined) {
    const left: string[] = [];
    for (const socket of offered?.sockets ?? []) {
      const taken = takeSocket(offered?.pidfd ?? -1, socket, netnsFd);
      if (taken.kind === 'taken') this.#taken.push({ ...socket, fd: taken.fd });
      else left.push(taken.reason);
    }
    this.left = left;
  }

  /** The descriptors of some of them, one at a time; each is the caller's from then on. */
  *take(isWanted: (socket: ListeningSocket) => boolean): Generator<number, void, undefined> {
    for (let at = this.#taken.findIndex(isWanted); at >= 0; at = this.#taken.findIndex(isWanted)) {
      for (const { fd } of this.#taken.splice(at, 1)) yield fd;
    }
  }

  /** Lets go of those that nobody wanted. */
  close(): void {
    for (const { fd } of this.#taken.splice(0)) closeDescriptor(fd);
  }
}

/**
 * Shares a socket with the process that offers it: one queue, from which both take. Nothing is taken that is not what it
 * is said to be: the other process may have closed it, and its number may be that of something else by now.
 */
export function takeSocket(pidfd: number, offered: ListeningSocket, netnsFd: number): Taken {
  let fd: number | undefined;
  try {
    fd = takeDescriptor(pidfd, offered.fd);
    const reason = difference(fd, offered, netnsFd);
    if (reason === undefined) return { kind: 'taken', fd };
    closeDescriptor(fd);
    return { kind: 'left', reason };
  } catch (error) {
    if (fd !== undefined) closeDescriptor(fd);
    if (error instanceof NativeError) return { kind: 'left', reason: error.message };
    throw error;
  }
}

function difference(fd: number, offered: ListeningSocket, netnsFd: number): string | undefined {
  const found = describeSocket(fd);
  const { protocol, address } = offered;
  const isSame =
    found?.protocol === protocol && found.address.ip === address.ip && found.address.port === address.port;
  if (!isSame) return `descriptor ${offered.fd} is not the socket that it was`;
  if (namespaceOfSocket(fd) !== namespaceId(netnsFd)) return `descriptor ${offered.fd} is of another pod`;
  return undefined;
}
