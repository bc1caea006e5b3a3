import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import { closeDescriptor } from '../capture/in-pod-sockets.ts';
import { NativeError } from '../capture/native.ts';
import { socketCookie } from '../capture/tcp-socket.ts';
import { type CarriedConnection, type CarriedKind, formatCarried, type HandOverOutcome } from './carried.ts';
import { type FromRetiring, parseFromSuccessor } from './hand-over-messages.ts';
import { LineSocket } from './line-socket.ts';
import type { Settled } from './port.ts';

export interface GiverOptions {
  readonly logger: Logger;
  /** For the answer to an offer. Default 2 s. */
  readonly answerMs?: number;
}

interface Offered {
  readonly connection: CarriedConnection;
  readonly timer: NodeJS.Timeout;
  readonly settle: (settled: Settled) => void;
}

const ANSWER_MS = 2_000;

/** The retiring process's end: offers connections to the successor that has asked for them, the last one if there were several. */
export class Giver {
  readonly #options: GiverOptions;
  readonly #offered = new Map<string, Offered>();
  readonly #counts = new Map<string, number>();
  #successor: LineSocket | undefined;

  constructor(options: GiverOptions) {
    this.#options = options;
  }

  /** Whether there is anybody to hand over to. */
  get hasSuccessor(): boolean {
    return this.#successor !== undefined;
  }

  /** What has become of connections so far, by kind and outcome. */
  get counts(): ReadonlyMap<string, number> {
    return this.#counts;
  }

  /** A successor has asked for connections. @param socket becomes this one's */
  accept(socket: Socket): void {
    this.close();
    const successor = new LineSocket(socket, {
      onMessage: (message) => this.#hear(message),
      onClose: () => {
        if (this.#successor !== successor) return;
        this.#successor = undefined;
        this.#keepAll();
      },
    });
    this.#successor = successor;
    this.#say({ type: 'hello', pid: process.pid });
  }

  /** Offers a connection. What it resolves to holds for good: `taken`, and its descriptors are closed here; or `kept`. */
  async offer(connection: CarriedConnection): Promise<Settled> {
    // The client of a tunnel chooses its ID, and may choose one twice.
    if (this.#offered.has(connection.id)) return this.#kept(connection, 'drained_same_id');
    const cookies = this.#successor && cookiesOf(connection);
    if (cookies === undefined) return this.#kept(connection, 'drained_no_successor');
    const { promise, resolve } = Promise.withResolvers<Settled>();
    const timer = setTimeout(
      () => this.#keep(connection.id, 'drained_no_answer'),
      this.#options.answerMs ?? ANSWER_MS,
    );
    this.#offered.set(connection.id, { connection, timer, settle: resolve });
    this.#say({ type: 'offer', cookies, connection: formatCarried(connection) });
    return promise;
  }

  /** Has it counted, here and there, what became of one. */
  count(of: CarriedKind, outcome: HandOverOutcome): void {
    const key = `${of} ${outcome}`;
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    if (outcome !== 'handed_over') this.#say({ type: 'outcome', of, outcome });
  }

  /** Ends it, after what has been said. Whatever was not answered is kept. */
  close(): void {
    this.#keepAll();
    this.#successor?.end();
    this.#successor = undefined;
  }

  #hear(message: unknown): void {
    const said = parseFromSuccessor(message);
    const offered = this.#offered.get(said.id);
    // It came too late: it was told so.
    if (offered === undefined) return;
    if (said.type === 'refused') {
      const { kind } = offered.connection;
      this.#options.logger.warn({ kind, reason: said.reason }, 'successor has refused a connection');
      this.#keep(said.id, 'drained_refused');
      return;
    }
    this.#forget(said.id);
    this.#say({ type: 'go', id: said.id });
    for (const { fd } of offered.connection.sockets) if (fd !== undefined) closeDescriptor(fd);
    this.count(offered.connection.kind, 'handed_over');
    offered.settle('taken');
  }

  #keepAll(): void {
    for (const id of [...this.#offered.keys()]) this.#keep(id, 'drained_successor_lost');
  }

  #keep(id: string, outcome: HandOverOutcome): void {
    const offered = this.#forget(id);
    if (offered === undefined) return;
    this.#say({ type: 'withdraw', id });
    offered.settle(this.#kept(offered.connection, outcome));
  }

  #kept({ kind }: CarriedConnection, outcome: HandOverOutcome): Settled {
    this.count(kind, outcome);
    return 'kept';
  }

  #forget(id: string): Offered | undefined {
    const offered = this.#offered.get(id);
    clearTimeout(offered?.timer);
    this.#offered.delete(id);
    return offered;
  }

  #say(message: FromRetiring): void {
    this.#successor?.send(message);
  }
}

/** What the successor will know the sockets by; undefined: they cannot be told. */
function cookiesOf({ sockets }: CarriedConnection): (string | null)[] | undefined {
  try {
    return sockets.map(({ fd }) => (fd === undefined ? null : `${socketCookie(fd)}`));
  } catch (error) {
    if (error instanceof NativeError) return undefined;
    throw error;
  }
}
