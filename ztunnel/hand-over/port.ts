import type { FromWorker } from '../worker-messages.ts';
import type { CarriedConnection, CarriedKind, HandOverOutcome } from './carried.ts';
import type { Claim } from './parked.ts';

/** What has come of an offer: the successor has the connection, or it is the worker's again, with its descriptors. */
export type Settled = 'taken' | 'kept';

/** A worker's way to the main thread for connections that change hands. */
export class HandOverPort {
  readonly #send: (message: FromWorker) => void;
  readonly #offers = new Map<string, (settled: Settled) => void>();
  readonly #claims = new Map<number, (claim: Claim) => void>();
  #claimCount = 0;

  constructor(send: (message: FromWorker) => void) {
    this.#send = send;
  }

  /** Offers a connection to the successor of this process. Until this resolves, its descriptors are nobody's here. */
  async offer(connection: CarriedConnection): Promise<Settled> {
    if (this.#offers.has(connection.id)) {
      this.count(connection.kind, 'drained_same_id');
      return 'kept';
    }
    const { promise, resolve } = Promise.withResolvers<Settled>();
    this.#offers.set(connection.id, resolve);
    this.#send({ kind: 'carried', connection });
    return promise;
  }

  /** Leaves a connection to whoever claims it within 10 s, at any worker of this process; then it is reset. */
  park(connection: CarriedConnection): void {
    this.#send({ kind: 'park', connection });
  }

  /**
   * Asks for a connection that is parked, or will be within 10 s.
   * @param claimant the one it is for, as who parked it has named it
   */
  async claim(id: string, claimant: string): Promise<Claim> {
    const claim = this.#claimCount++;
    const { promise, resolve } = Promise.withResolvers<Claim>();
    this.#claims.set(claim, resolve);
    this.#send({ kind: 'claim', claim, id, claimant });
    return promise;
  }

  /** Counts what has become of a connection. */
  count(of: CarriedKind, outcome: HandOverOutcome): void {
    this.#send({ kind: 'hand-over', of, outcome });
  }

  /** What became of one that was adopted or claimed here is known, and counted. */
  decided(id: string): void {
    this.#send({ kind: 'decided', id });
  }

  /** The main thread's answer to an offer. */
  settled(id: string, outcome: Settled): void {
    const settle = this.#offers.get(id);
    this.#offers.delete(id);
    settle?.(outcome);
  }

  /** The main thread's answer to a claim. */
  claimed(claim: number, answer: Claim): void {
    const settle = this.#claims.get(claim);
    this.#claims.delete(claim);
    settle?.(answer);
  }
}
