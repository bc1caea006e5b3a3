import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import { closeDescriptor } from '../capture/in-pod-sockets.ts';
import { hasCode, NativeError, pollAsync } from '../capture/native.ts';
import { socketCookie } from '../capture/tcp-socket.ts';
import { askUpgrade } from './ask-upgrade.ts';
import { type CarriedConnection, CarriedError, parseCarried } from './carried.ts';
import { openProcess, takeDescriptor } from './descriptors.ts';
import {
  type FromRetiring,
  type FromSuccessor,
  HAND_OVER_PROTOCOL,
  parseFromRetiring,
} from './hand-over-messages.ts';
import { LineSocket } from './line-socket.ts';

export interface ReceiverOptions {
  readonly logger: Logger;
  /** Why a connection cannot be taken now; undefined: it can. */
  readonly whyNot: (connection: CarriedConnection) => string | undefined;
  /** A connection is here; it and its descriptors are the callee's. */
  readonly onConnection: (connection: CarriedConnection) => void;
  /** What became of one that stayed where it was. */
  readonly onOutcome: (of: string, outcome: string) => void;
}

/** Below what a start may take. */
const ANSWER_MS = 3_000;
/** From the end of what a process has open to its own. */
const DEATH_MS = 1_000;
const POLLIN = 1;

/**
 * Has a process that is about to retire hand its connections over, when its time comes.
 * @param socketPath its order socket
 * @throws Error when it does not answer, or knows no hand-over of this version
 */
export async function receiveConnections(socketPath: string, options: ReceiverOptions): Promise<Disposable> {
  const socket = await askUpgrade({
    socketPath,
    path: '/hand-over/connections',
    protocol: HAND_OVER_PROTOCOL,
    answerMs: ANSWER_MS,
  });
  return new Receiver(socket, options);
}

/** The successor's end. */
class Receiver implements Disposable {
  readonly #options: ReceiverOptions;
  readonly #lines: LineSocket;
  /** Taken, and not to be touched yet. */
  readonly #held = new Map<string, CarriedConnection>();
  #pidfd: number | undefined;
  #taken = 0;

  constructor(socket: Socket, options: ReceiverOptions) {
    this.#options = options;
    this.#lines = new LineSocket(socket, {
      onMessage: (message) => this.#hear(parseFromRetiring(message)),
      onClose: (error) => this.#onClose(error),
    });
  }

  /** Takes nothing more. What was taken and not said to be ours stays the other's. */
  [Symbol.dispose](): void {
    this.#lines[Symbol.dispose]();
  }

  #hear(said: FromRetiring): void {
    switch (said.type) {
      case 'hello':
        this.#pidfd ??= openProcess(said.pid);
        break;
      case 'offer':
        this.#say(this.#take(said));
        break;
      case 'go':
        this.#release(said.id, (connection) => this.#deliver(connection));
        break;
      case 'withdraw':
        this.#release(said.id, closeAll);
        break;
      case 'outcome':
        this.#options.onOutcome(said.of, said.outcome);
    }
  }

  #take({ connection: value, cookies }: FromRetiring & { readonly type: 'offer' }): FromSuccessor {
    const { id } = value;
    try {
      const offered = parseCarried(value);
      const reason = this.#held.has(id) ? 'it is here already' : this.#options.whyNot(offered);
      if (reason !== undefined) return { type: 'refused', id, reason };
      this.#held.set(id, takeSockets(this.#pidfd ?? -1, offered, cookies));
      return { type: 'taken', id };
    } catch (error) {
      if (!(error instanceof NativeError || error instanceof CarriedError)) throw error;
      return { type: 'refused', id, reason: error.message };
    }
  }

  #say(message: FromSuccessor): void {
    this.#lines.send(message);
  }

  #release(id: string, use: (connection: CarriedConnection) => void): void {
    const connection = this.#held.get(id);
    this.#held.delete(id);
    if (connection !== undefined) use(connection);
  }

  #deliver(connection: CarriedConnection): void {
    this.#taken += 1;
    this.#options.onConnection(connection);
  }

  /** What it did not say to be ours is ours only if it can no longer go on with it itself. */
  #onClose(error: Error | undefined): void {
    const { logger } = this.#options;
    const reason = error?.message;
    const finish = (isGone: boolean): void => {
      const use = isGone ? (each: CarriedConnection) => this.#deliver(each) : closeAll;
      for (const id of [...this.#held.keys()]) this.#release(id, use);
      if (this.#pidfd !== undefined) closeDescriptor(this.#pidfd);
      this.#pidfd = undefined;
      const fields = { connections: this.#taken, ...(reason !== undefined && { reason }) };
      logger.info(fields, 'predecessor hands nothing more over');
    };
    // Without a code it is our own: the other is there, and has been told.
    const isOurs = error !== undefined && !('code' in error);
    if (this.#pidfd === undefined || this.#held.size === 0 || isOurs) finish(false);
    else whenGone(this.#pidfd, finish);
  }
}

/** Takes all sockets, and looks at what it got: the very ones. @throws NativeError, CarriedError; nothing is taken then */
function takeSockets(
  pidfd: number,
  offered: CarriedConnection,
  cookies: readonly (string | null)[],
): CarriedConnection {
  const sockets: CarriedConnection['sockets'][number][] = [];
  try {
    for (const [at, socket] of offered.sockets.entries()) {
      const fd = socket.fd === undefined ? undefined : takeDescriptor(pidfd, socket.fd);
      sockets.push({ ...socket, fd });
      if (fd !== undefined && `${socketCookie(fd)}` !== cookies[at]) {
        throw new CarriedError(`descriptor ${socket.fd} is not the socket that it was`);
      }
    }
    return { ...offered, sockets };
  } catch (error) {
    closeAll({ sockets });
    throw hasCode(error, 'ENOTSOCK')
      ? new CarriedError('a descriptor is no socket', { cause: error })
      : error;
  }
}

/** Closes what another process has still. */
function closeAll({ sockets }: Pick<CarriedConnection, 'sockets'>): void {
  for (const { fd } of sockets) if (fd !== undefined) closeDescriptor(fd);
}

/** Whether the process is gone within a second, at most. */
function whenGone(pidfd: number, done: (isGone: boolean) => void): void {
  const entry = Buffer.alloc(8); // struct pollfd
  entry.writeInt32LE(pidfd, 0);
  entry.writeInt16LE(POLLIN, 4);
  pollAsync(entry, 1, DEATH_MS, () => done((entry.readInt16LE(6) & POLLIN) !== 0));
}
