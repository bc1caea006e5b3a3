import type { Logger } from 'pino';
import { hasCode, NativeError } from '../capture/native.ts';
import { askUpgrade } from './ask-upgrade.ts';
import { type CarriedConnection, CarriedError, parseCarried } from './carried.ts';
import {
  type FromRetiring,
  type FromSuccessor,
  HAND_OVER_PROTOCOL,
  parseFromRetiring,
} from './hand-over-messages.ts';
import { LineSocket, type LineSocketOptions, type Lines } from './line-socket.ts';
import { type HandOverSystem, SYSTEM } from './system.ts';

export interface ReceiverOptions {
  readonly logger: Logger;
  /** Why a connection cannot be taken now; undefined: it can. */
  readonly whyNot: (connection: CarriedConnection) => string | undefined;
  /** A connection is here; it and its descriptors are the callee's. */
  readonly onConnection: (connection: CarriedConnection) => void;
  /** What became of one that stayed where it was. */
  readonly onOutcome: (of: string, outcome: string) => void;
  /** Nothing more comes. */
  readonly onEnd: () => void;
  /** Default: the kernel. */
  readonly system?: HandOverSystem;
}

/** Below what a start may take. */
const ANSWER_MS = 3_000;

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
  return new Receiver((lines) => new LineSocket(socket, lines), options);
}

/** The successor's end. */
export class Receiver implements Disposable {
  readonly #options: ReceiverOptions;
  readonly #system: HandOverSystem;
  readonly #lines: Lines;
  /** Taken, and not to be touched yet, by the numbers of their offers. */
  readonly #held = new Map<number, CarriedConnection>();
  #pidfd: number | undefined;
  #taken = 0;
  #isOver = false;

  /** @param open opens the way to the process that is about to retire */
  constructor(open: (options: LineSocketOptions) => Lines, options: ReceiverOptions) {
    this.#options = options;
    this.#system = options.system ?? SYSTEM;
    this.#lines = open({
      onMessage: (message) => this.#hear(parseFromRetiring(message)),
      onClose: (error) => this.#onClose(error),
    });
  }

  /** Takes nothing more. What was taken and not said to be ours stays the other's. */
  [Symbol.dispose](): void {
    this.#isOver = true;
    this.#lines[Symbol.dispose]();
  }

  #hear(said: FromRetiring): void {
    switch (said.type) {
      case 'hello':
        this.#pidfd ??= this.#system.openProcess(said.pid);
        break;
      case 'offer':
        this.#say(this.#take(said));
        break;
      case 'go':
        this.#release(said.number, (connection) => this.#deliver(connection));
        break;
      case 'withdraw':
        this.#release(said.number, (connection) => this.#closeAll(connection));
        break;
      case 'outcome':
        this.#options.onOutcome(said.of, said.outcome);
    }
  }

  #take({ number, connection, cookies }: FromRetiring & { readonly type: 'offer' }): FromSuccessor {
    try {
      const offered = parseCarried(connection);
      const reason = this.#held.has(number) ? 'it is here already' : this.#options.whyNot(offered);
      if (reason !== undefined) return { type: 'refused', number, reason };
      this.#held.set(number, this.#takeSockets(offered, cookies));
      return { type: 'taken', number };
    } catch (error) {
      if (!(error instanceof NativeError || error instanceof CarriedError)) throw error;
      return { type: 'refused', number, reason: error.message };
    }
  }

  /** Takes all sockets, and looks at what it got: the very ones. @throws NativeError, CarriedError; nothing is taken then */
  #takeSockets(offered: CarriedConnection, cookies: readonly (string | null)[]): CarriedConnection {
    const sockets: CarriedConnection['sockets'][number][] = [];
    try {
      for (const [at, socket] of offered.sockets.entries()) {
        const fd = socket.fd === undefined ? undefined : this.#system.take(this.#pidfd ?? -1, socket.fd);
        sockets.push({ ...socket, fd });
        if (fd !== undefined && `${this.#system.cookie(fd)}` !== cookies[at]) {
          throw new CarriedError(`descriptor ${socket.fd} is not the socket that it was`);
        }
      }
      return { ...offered, sockets };
    } catch (error) {
      this.#closeAll({ sockets });
      throw hasCode(error, 'ENOTSOCK')
        ? new CarriedError('a descriptor is no socket', { cause: error })
        : error;
    }
  }

  #say(message: FromSuccessor): void {
    this.#lines.send(message);
  }

  #release(number: number, use: (connection: CarriedConnection) => void): void {
    const connection = this.#held.get(number);
    this.#held.delete(number);
    if (connection !== undefined) use(connection);
  }

  #deliver(connection: CarriedConnection): void {
    this.#taken += 1;
    for (const fd of descriptorsOf(connection)) this.#system.setOffered(fd, false);
    this.#options.onConnection(connection);
  }

  /** What is the other's still goes on; what is nobody's any more is reset by that. */
  #closeAll(connection: Pick<CarriedConnection, 'sockets'>): void {
    for (const fd of descriptorsOf(connection)) this.#system.close(fd);
  }

  #onClose(error: Error | undefined): void {
    // Without a code it is our own: the other is there, and has been told.
    const isOurs = this.#isOver || (error !== undefined && !('code' in error));
    if (this.#pidfd === undefined || this.#held.size === 0 || isOurs) this.#finish(false, error);
    else this.#system.whenGone(this.#pidfd, (isGone) => this.#finish(isGone, error));
  }

  /** What the other did not say to be ours is ours only if it is gone, and did not go on with it before. */
  #finish(isGone: boolean, error: Error | undefined): void {
    for (const [number, connection] of [...this.#held]) {
      const isOurs = isGone && !this.#isOver && this.#isOnOffer(connection);
      this.#release(number, (each) => (isOurs ? this.#deliver(each) : this.#closeAll(each)));
    }
    if (this.#pidfd !== undefined) this.#system.close(this.#pidfd);
    this.#pidfd = undefined;
    const fields = { connections: this.#taken, ...(error !== undefined && { reason: error.message }) };
    this.#options.logger.info(fields, 'predecessor hands nothing more over');
    this.#options.onEnd();
  }

  /** Where there is no socket left to ask, there are no bytes to move either. */
  #isOnOffer(connection: CarriedConnection): boolean {
    const descriptors = descriptorsOf(connection);
    return descriptors.length > 0 && descriptors.every((fd) => this.#system.isOffered(fd));
  }
}

function descriptorsOf({ sockets }: Pick<CarriedConnection, 'sockets'>): readonly number[] {
  return sockets.flatMap(({ fd }) => fd ?? []);
}
