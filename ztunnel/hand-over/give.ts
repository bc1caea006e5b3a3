import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import { NativeError } from '../capture/native.ts';
import { type CarriedConnection, type CarriedKind, formatCarried, type HandOverOutcome } from './carried.ts';
import { type FromRetiring, parseFromSuccessor } from './hand-over-messages.ts';
import { LineSocket, type LineSocketOptions, type Lines } from './line-socket.ts';
import type { Settled } from './port.ts';
import { type HandOverSystem, SYSTEM } from './system.ts';

export interface GiverOptions {
  readonly logger: Logger;
  /** For the answer to an offer. Default 2 s. */
  readonly answerMs?: number;
  /** Default: the kernel. */
  readonly system?: HandOverSystem;
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
  readonly #system: HandOverSystem;
  /** By their numbers. */
  readonly #offered = new Map<number, Offered>();
  readonly #counts = new Map<string, number>();
  #offers = 0;
  #successor: Lines | undefined;

  constructor(options: GiverOptions) {
    this.#options = options;
    this.#system = options.system ?? SYSTEM;
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
    this.speak((options) => new LineSocket(socket, options));
  }

  /** A successor has asked for connections. @param open opens the way to it */
  speak(open: (options: LineSocketOptions) => Lines): void {
    this.close();
    const successor = open({
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
    const cookies = this.#successor && this.#putOnOffer(connection);
    if (cookies === undefined) return this.#kept(connection, 'drained_no_successor');
    this.#offers += 1;
    const number = this.#offers;
    const { promise, resolve } = Promise.withResolvers<Settled>();
    const timer = setTimeout(
      () => this.#keep(number, 'drained_no_answer'),
      this.#options.answerMs ?? ANSWER_MS,
    );
    this.#offered.set(number, { connection, timer, settle: resolve });
    this.#say({ type: 'offer', number, cookies, connection: formatCarried(connection) });
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
    const offered = this.#offered.get(said.number);
    // It came too late: it was told so.
    if (offered === undefined) return;
    const { connection } = offered;
    if (said.type === 'refused') {
      const fields = { kind: connection.kind, reason: said.reason };
      this.#options.logger.warn(fields, 'successor has refused a connection');
      this.#keep(said.number, 'drained_refused');
      return;
    }
    this.#forget(said.number);
    this.#say({ type: 'go', number: said.number });
    for (const fd of descriptorsOf(connection)) this.#system.close(fd);
    this.count(connection.kind, 'handed_over');
    offered.settle('taken');
  }

  #keepAll(): void {
    for (const number of [...this.#offered.keys()]) this.#keep(number, 'drained_successor_lost');
  }

  #keep(number: number, outcome: HandOverOutcome): void {
    const offered = this.#forget(number);
    if (offered === undefined) return;
    // What is said may be lost with this process: what is on the socket is not.
    for (const fd of descriptorsOf(offered.connection)) this.#system.setOffered(fd, false);
    this.#say({ type: 'withdraw', number });
    offered.settle(this.#kept(offered.connection, outcome));
  }

  #kept({ kind }: CarriedConnection, outcome: HandOverOutcome): Settled {
    this.count(kind, outcome);
    return 'kept';
  }

  #forget(number: number): Offered | undefined {
    const offered = this.#offered.get(number);
    clearTimeout(offered?.timer);
    this.#offered.delete(number);
    return offered;
  }

  /** What the successor will know the sockets by; undefined: they cannot be told. */
  #putOnOffer(connection: CarriedConnection): (string | null)[] | undefined {
    try {
      for (const fd of descriptorsOf(connection)) this.#system.setOffered(fd, true);
      return connection.sockets.map(({ fd }) => (fd === undefined ? null : `${this.#system.cookie(fd)}`));
    } catch (error) {
      if (error instanceof NativeError) return undefined;
      throw error;
    }
  }

  #say(message: FromRetiring): void {
    this.#successor?.send(message);
  }
}

function descriptorsOf({ sockets }: CarriedConnection): readonly number[] {
  return sockets.flatMap(({ fd }) => fd ?? []);
}
