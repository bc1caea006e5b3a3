import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import type { AccessRecord } from './access-log.ts';
import type { Entrusted } from './byte-worker.ts';
import { type Failure, strandedRecords } from './connection-record.ts';
import type { CarriedConnection, CarriedKind } from './hand-over/carried.ts';
import { resetDescriptor } from './hand-over/descriptors.ts';
import { Giver } from './hand-over/give.ts';
import { Parked } from './hand-over/parked.ts';
import type { Predecessor } from './hand-over/predecessor.ts';
import { ofRestart } from './resume/inbound-tunnel.ts';
import type { HandOverNotice, Workers } from './workers.ts';

export interface NodeHandOverOptions {
  readonly workers: () => Pick<Workers, 'tell' | 'adopt' | 'parked'>;
  /** Why connections of a pod cannot be taken up now; undefined: they can. */
  readonly whyNot: (podUid: string) => string | undefined;
  /** Records of no worker's. */
  readonly onRecords: (records: readonly AccessRecord[]) => void;
  /** What has become of a connection. */
  readonly count: (of: string, outcome: string) => void;
  /** That may wait in memory with connections whose other end has not come back yet. */
  readonly parkedBytes: number;
  readonly logger: Logger;
}

/** What became of the connections that a restart met. */
export interface MetConnections {
  /** The predecessor has said its last word, and what came from it goes on or has ended. */
  readonly isOver: boolean;
  /** How many, by kind and outcome. */
  readonly met: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** Connections that change hands, as the main thread sees to it: to a successor, from a predecessor, between workers. */
export class NodeHandOver {
  readonly #options: NodeHandOverOptions;
  readonly #giver: Giver;
  readonly #parked: Parked;
  /** What the last restart has met, by kind and outcome. */
  readonly #met = new Map<string, Map<string, number>>();
  /** How often a worker's thread has been replaced. */
  readonly #crashes = new Map<number, number>();
  /** What of this thread's is being offered to the successor. */
  readonly #moving = new Set<Promise<void>>();
  /** Sockets that wait here, by the uid of their pod. */
  readonly #parkedOf = new Map<string, number>();
  /** Pods whose number the workers have not been told. */
  readonly #untold = new Set<string>();
  /** IDs of those that came from the predecessor, and of which it is not known yet what becomes of them. */
  readonly #undecided = new Set<string>();
  #isReceiving = false;
  #isRetiring = false;
  #isClosed = false;

  constructor(options: NodeHandOverOptions) {
    this.#options = options;
    this.#giver = new Giver({ logger: options.logger });
    this.#parked = new Parked({
      bytesOf: ({ sockets }) => sockets.reduce((sum, { unsent }) => sum + unsent.length, 0),
      limitBytes: options.parkedBytes,
      onWaiting: (connection, change) => this.#countFor(connection, change),
      onUnclaimed: (connection, why) => {
        const error = `connection closed because the other end of its tunnel has not come back: ${why}`;
        this.#strand(connection, { error, flags: '-' }, `reset_${why}`);
      },
    });
  }

  /** A successor has asked for connections. @param socket becomes this one's */
  accept(socket: Socket): void {
    this.#giver.accept(socket);
  }

  /** Has connections that the predecessor gives up taken over here, when it does. */
  async receiveFrom(predecessor: Pick<Predecessor, 'receive'>): Promise<void> {
    const { whyNot } = this.#options;
    this.#isReceiving = true;
    await predecessor.receive({
      whyNot: ({ podUid, otherPodUid }) => {
        if (this.#isRetiring) return 'this process is about to end itself';
        return whyNot(podUid) ?? (otherPodUid === undefined ? undefined : whyNot(otherPodUid));
      },
      onConnection: (connection) => this.#receive(connection),
      onOutcome: (of, outcome) => this.#note(of, outcome),
      onEnd: () => {
        this.#isReceiving = false;
      },
    });
  }

  /** What a worker says. */
  hear(worker: number, notice: HandOverNotice): void {
    switch (notice.kind) {
      case 'carried':
        void this.#offer(worker, notice.connection);
        break;
      case 'park':
        this.#park(notice.connection);
        break;
      case 'claim':
        void this.#claim(worker, notice);
        break;
      case 'decided':
        this.#undecided.delete(notice.id);
        break;
      case 'hand-over':
        this.#count(notice.of, notice.outcome);
    }
  }

  /** A thread has ended, and another takes its number: what the first one asked for is nobody's. */
  workerCrashed(worker: number): void {
    this.#crashes.set(worker, (this.#crashes.get(worker) ?? 0) + 1);
    this.#undecided.clear(); // nobody says any more of which it was the one
  }

  /** What became of the connections that the restart met with which this process began. */
  met(): MetConnections {
    const met = Object.fromEntries([...this.#met].map(([of, counts]) => [of, Object.fromEntries(counts)]));
    return { isOver: !this.#isReceiving && this.#undecided.size === 0, met };
  }

  /** Begins to give connections up; whether there is anybody to take them. */
  retire(): boolean {
    this.#isRetiring = true;
    if (!this.#giver.hasSuccessor) return false;
    for (const connection of this.#parked.move()) this.#park(connection);
    return true;
  }

  /** Resolves when the successor has answered for all that waited here: soon, whatever it does. */
  async untilMoved(): Promise<void> {
    await Promise.all(this.#moving);
  }

  /** After the last connection has gone or ended. Harmless when it has been called. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#parked.close();
    const { counts } = this.#giver;
    if (counts.size > 0) this.#options.logger.info(Object.fromEntries(counts), 'connections handed over');
    this.#giver.close();
  }

  /** What comes when this process is about to end itself goes on to its successor. */
  #receive(connection: CarriedConnection): void {
    if (!this.#isRetiring) this.#undecided.add(connection.id);
    if (connection.claimant !== undefined) this.#park(ofRestart(connection));
    else if (this.#isRetiring) this.#track(this.#passOn(connection));
    else this.#adopt(connection);
  }

  async #passOn(connection: CarriedConnection): Promise<void> {
    if ((await this.#giver.offer(connection)) === 'kept') this.#adopt(connection);
  }

  #adopt(connection: CarriedConnection): void {
    if (this.#options.workers().adopt(connection, () => this.#adopt(connection))) return;
    const error = 'connection not taken over: no worker is there';
    this.#strand(connection, { error, flags: '-' }, 'reset_no_worker');
  }

  /** Here, or, where it is about to end, with its successor: whoever claims it comes there. */
  #park(connection: CarriedConnection): void {
    this.#track(this.#offerOrPark(connection));
  }

  #track(moving: Promise<void>): void {
    this.#moving.add(moving);
    void moving.then(() => this.#moving.delete(moving));
  }

  async #offerOrPark(connection: CarriedConnection): Promise<void> {
    const isTaken = this.#isRetiring && (await this.#giver.offer(connection)) === 'taken';
    if (!isTaken) this.#parked.park(connection);
  }

  async #offer(worker: number, connection: CarriedConnection): Promise<void> {
    const tell = this.#toThreadOf(worker);
    const outcome = await this.#giver.offer(connection);
    tell({ kind: 'settled', id: connection.id, outcome }, () => {
      if (outcome === 'kept') resetAll(connection);
    });
  }

  /** If who asked has gone, its caller asks again by another. */
  async #claim(worker: number, { claim, id, claimant }: HandOverNotice & { kind: 'claim' }): Promise<void> {
    const tell = this.#toThreadOf(worker);
    const answer = await this.#parked.claim(id, claimant);
    tell({ kind: 'claimed', claim, answer }, () => {
      if (answer.kind === 'claimed') this.#park(answer.connection);
    });
  }

  /** Tells a worker something, if its thread is the one that it is now. */
  #toThreadOf(worker: number): (notice: Entrusted, onLost: () => void) => void {
    const crashes = this.#crashes.get(worker);
    return (notice, onLost) => {
      if (this.#crashes.get(worker) === crashes) this.#options.workers().tell(worker, notice, onLost);
      else onLost();
    };
  }

  /** Thousands may come at once: told together. */
  #countFor({ podUid, sockets }: CarriedConnection, change: 1 | -1): void {
    const count =
      (this.#parkedOf.get(podUid) ?? 0) + change * sockets.filter(({ fd }) => fd !== undefined).length;
    if (count === 0) this.#parkedOf.delete(podUid);
    else this.#parkedOf.set(podUid, count);
    if (this.#untold.size === 0) setImmediate(() => this.#tellParked());
    this.#untold.add(podUid);
  }

  #tellParked(): void {
    for (const uid of this.#untold) this.#options.workers().parked(uid, this.#parkedOf.get(uid) ?? 0);
    this.#untold.clear();
  }

  /** What a retiring process counts is in its successor's figures, which outlive its own. */
  #count(of: CarriedKind, outcome: Parameters<Giver['count']>[1]): void {
    if (this.#isRetiring) this.#giver.count(of, outcome);
    else this.#note(of, outcome);
  }

  #note(of: string, outcome: string): void {
    this.#options.count(of, outcome);
    const counts = this.#met.get(of) ?? new Map<string, number>();
    this.#met.set(of, counts.set(outcome, (counts.get(outcome) ?? 0) + 1));
  }

  /** Ends what nobody can go on with. */
  #strand(connection: CarriedConnection, failure: Failure, outcome: `reset_${string}`): void {
    resetAll(connection);
    this.#undecided.delete(connection.id);
    this.#options.onRecords(strandedRecords(connection.record, failure));
    this.#count(connection.kind, outcome);
  }
}

function resetAll({ sockets }: CarriedConnection): void {
  for (const { fd } of sockets) if (fd !== undefined) resetDescriptor(fd);
}
