import type { Server, Socket } from 'node:net';
import { descriptorLimit } from './capture/native.ts';
import { ExhaustedError, exhaustedDescriptors } from './exhausted.ts';
import type { SocketOwner } from './hbone/attach-socket.ts';
import { assignShare, type FairShare } from './hbone/fair-share.ts';
import { reservedDescriptors } from './limits.ts';
import { descriptorOf, type PodSockets } from './pod-sockets.ts';
import type { Shedding, Shortage } from './shedding.ts';

export interface LimitedSocketsOptions {
  /** `namespace/name`, for messages. */
  readonly pod: string;
  /** Sockets that the pod may have at a time. */
  readonly most: number;
  /** Those of them that are not here: they wait, for the other end of their tunnel to come back. */
  readonly parked: () => number;
  /** Whose reads those of its sockets are. */
  readonly share: FairShare;
  readonly shedding: Shedding;
}

/** The sockets of a pod, counted and limited. What is accepted has to be admitted first. */
export interface LimitedSockets extends PodSockets, SocketOwner {
  /** Whether an accepted socket may stay; from then on it counts. If not, it has been reset, and that noted. */
  readonly admit: (socket: Socket) => boolean;
  /** Those that are open. */
  readonly count: () => number;
  /** Accepting failed, for want of something. */
  readonly acceptFailed: (error: Error) => void;
}

/** Sockets that a pod may have as many of as the options say. */
export function limitSockets(sockets: PodSockets, options: LimitedSocketsOptions): LimitedSockets {
  const { pod, most, parked, share, shedding } = options;
  let open = 0;
  const isFull = (): boolean => open + parked() >= most;
  const onClose = (): void => {
    open -= 1;
  };
  const take = (socket: Socket): void => {
    open += 1;
    assignShare(socket, share);
    socket.once('close', onClose);
  };
  const tooMany = (): ExhaustedError =>
    new ExhaustedError(`pod ${pod} has ${most} sockets, as many as one may have`, 'POD_SOCKETS', undefined);

  const dial = (make: () => Socket): Socket => {
    if (isFull()) throw noted(tooMany());
    let socket: Socket;
    try {
      socket = make();
    } catch (error) {
      throw noted(error);
    }
    take(socket);
    socket.once('error', noted);
    // Whoever waits for it is told.
    if (isReserved(socket)) socket.destroy(new ExhaustedError(exhaustedMessage(), 'EMFILE', undefined));
    return socket;
  };
  const noted = <E>(error: E): E => {
    const shortage = shortageOf(error);
    if (shortage === undefined || !(error instanceof Error)) return error;
    shedding.note(shortage, pod, messageOf(error));
    return error;
  };
  return {
    ...sockets,
    dial: (to, caller) => dial(() => sockets.dial(to, caller)),
    dialOutside: (to) => dial(() => sockets.dialOutside(to)),
    count: () => open,
    regain: take,
    admit: (socket) => {
      const isOver = isFull();
      if (!isOver && !isReserved(socket)) {
        take(socket);
        return true;
      }
      noted(isOver ? tooMany() : new ExhaustedError(exhaustedMessage(), 'EMFILE', undefined));
      socket.resetAndDestroy();
      return false;
    },
    acceptFailed: (error) => {
      const message = exhaustedDescriptors(error);
      if (message !== undefined) shedding.note('descriptors', pod, message);
      else shedding.note('memory', pod, `connections cannot be accepted: ${error.message}`);
    },
  };
}

const SHORTAGES: Readonly<Record<ExhaustedError['code'], Shortage>> = {
  EMFILE: 'descriptors',
  ENFILE: 'descriptors',
  EADDRNOTAVAIL: 'ports',
  ENOMEM: 'memory',
  ENOBUFS: 'memory',
  POD_SOCKETS: 'pod-sockets',
};

function shortageOf(error: unknown): Shortage | undefined {
  if (error instanceof ExhaustedError) return SHORTAGES[error.code];
  // EADDRNOTAVAIL of a call of ours means another thing.
  return exhaustedDescriptors(error) === undefined ? undefined : 'descriptors';
}

/** What names the process or pod, and says what helps. */
function messageOf(error: Error): string {
  return error instanceof ExhaustedError ? error.message : (exhaustedDescriptors(error) ?? error.message);
}

function exhaustedMessage(): string {
  const limit = Number(descriptorLimit());
  return (
    `nearly all ${limit} descriptors of this process are in use, and the last ${reservedDescriptors(limit)} are kept; ` +
    'raise its limit of open files'
  );
}

/**
 * Descriptors are given out from below, so that a high one says how many there are. The limit is asked for each time, which takes
 * a microsecond: it can be changed from outside, and once there are no descriptors at all nobody hears of what is refused, since
 * libuv then accepts and closes without a word.
 */
function isReserved(socket: Socket | Server): boolean {
  const limit = Number(descriptorLimit());
  return (descriptorOf(socket) ?? 0) >= limit - reservedDescriptors(limit);
}
