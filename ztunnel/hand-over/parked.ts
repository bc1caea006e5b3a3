import type { CarriedConnection } from './carried.ts';
import { Shares } from './shares.ts';

/** What can be claimed: by its ID, by one alone. */
export interface Claimable {
  readonly id: string;
  /** Words; the first two, an identity and an address, say whose share it is of what may wait. */
  readonly claimant?: string;
}

/** What a claim is answered with. */
export type Claim<Connection = CarriedConnection> =
  /** The connection is the claimant's from here on. */
  | { readonly kind: 'claimed'; readonly connection: Connection }
  /** It is somebody else's, and stays there. */
  | { readonly kind: 'refused' }
  /** It did not come in time. */
  | { readonly kind: 'absent' }
  /** To be asked for again: this process goes away, and its successor has it or will; or too many wait, of this peer most. */
  | { readonly kind: 'moved' };

export interface ParkedOptions<Connection = CarriedConnection> {
  /** How long one waits to be claimed, and a claim for what it claims. Default 10 s. */
  readonly patienceMs?: number;
  /** Connections that may wait at a time, and claims. Default 10,000. */
  readonly limit?: number;
  /** Bytes of memory that wait with a connection, and that may wait with all of them. Default: any number. */
  readonly bytesOf?: (connection: Connection) => number;
  readonly limitBytes?: number;
  /** Nobody has claimed it in time (`late`), or there is no room: it and its descriptors are the callee's. */
  readonly onUnclaimed: (connection: Connection, why: 'late' | 'full') => void;
  /** One more waits, or one less. */
  readonly onWaiting?: (connection: Connection, change: 1 | -1) => void;
}

interface Waiting<Connection> {
  readonly connection: Connection;
  readonly timer: NodeJS.Timeout;
}

interface Claiming<Connection> {
  readonly claimant: string;
  readonly answer: (claim: Claim<Connection>) => void;
}

const PATIENCE_MS = 10_000;
const LIMIT = 10_000;

/**
 * Connections that wait, on the main thread, for the other end of their tunnel to come back, whichever of both is first. When there
 * is no room, the peer with the most of them, of their bytes or of the claims, gives way.
 */
export class Parked<Connection extends Claimable = CarriedConnection> {
  readonly #options: ParkedOptions<Connection>;
  readonly #waiting = new Map<string, Waiting<Connection>>();
  readonly #claims = new Map<string, Set<Claiming<Connection>>>();
  /** Of the places of connections, their bytes, and the places of claims. */
  readonly #places: Shares<string>;
  readonly #bytes: Shares<string>;
  readonly #asking: Shares<Claiming<Connection>>;
  #isMoving = false;

  constructor(options: ParkedOptions<Connection>) {
    const { limit = LIMIT, limitBytes = Infinity } = options;
    this.#options = options;
    this.#places = new Shares(limit);
    this.#bytes = new Shares(limitBytes);
    this.#asking = new Shares(limit);
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Takes a connection over until it is claimed. */
  park(connection: Connection): void {
    const { patienceMs = PATIENCE_MS, onUnclaimed, onWaiting } = this.#options;
    const { id } = connection;
    for (const claiming of this.#claims.get(id) ?? []) {
      const isTheirs = claiming.claimant === connection.claimant;
      claiming.answer(isTheirs ? { kind: 'claimed', connection } : { kind: 'refused' });
      if (isTheirs) return;
    }
    if (this.#waiting.has(id) || !this.#makeRoom(connection)) {
      onUnclaimed(connection, 'full');
      return;
    }
    const timer = setTimeout(() => this.#giveBack(connection, 'late'), patienceMs);
    const owner = ownerOf(connection.claimant);
    this.#waiting.set(id, { connection, timer });
    this.#places.put(owner, id, 1);
    this.#bytes.put(owner, id, this.#bytesOf(connection));
    onWaiting?.(connection, 1);
  }

  #bytesOf(connection: Connection): number {
    return this.#options.bytesOf?.(connection) ?? 0;
  }

  #makeRoom(connection: Connection): boolean {
    const owner = ownerOf(connection.claimant);
    const places = this.#places.inTheWayOf(owner, 1);
    const bytes = this.#bytes.inTheWayOf(owner, this.#bytesOf(connection));
    if (places === undefined || bytes === undefined) return false;
    for (const id of [...bytes, ...places]) {
      const waiting = this.#waiting.get(id);
      if (waiting !== undefined) this.#giveBack(waiting.connection, 'full');
    }
    return true;
  }

  #giveBack(connection: Connection, why: 'late' | 'full'): void {
    this.#remove(connection);
    this.#options.onUnclaimed(connection, why);
  }

  #remove(connection: Connection): void {
    const { id, claimant } = connection;
    clearTimeout(this.#waiting.get(id)?.timer);
    this.#waiting.delete(id);
    this.#places.remove(ownerOf(claimant), id);
    this.#bytes.remove(ownerOf(claimant), id);
    this.#options.onWaiting?.(connection, -1);
  }

  /** Gives a connection to the one who may have it; waits for it if it is not there yet. */
  async claim(id: string, claimant: string): Promise<Claim<Connection>> {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return this.#isMoving ? { kind: 'moved' } : this.#await(id, claimant);
    if (waiting.connection.claimant !== claimant) return { kind: 'refused' };
    this.#remove(waiting.connection);
    return { kind: 'claimed', connection: waiting.connection };
  }

  /** Takes back one that waits: it is the caller's again. @returns whether it does wait */
  take(connection: Connection): boolean {
    if (this.#waiting.get(connection.id)?.connection !== connection) return false;
    this.#remove(connection);
    return true;
  }

  /** Gives up those that wait, which are the caller's then, to another process; whoever claims one is sent there, too. */
  move(): readonly Connection[] {
    this.#isMoving = true;
    const waiting = [...this.#waiting.values()];
    for (const { connection } of waiting) this.#remove(connection);
    for (const claims of [...this.#claims.values()])
      for (const { answer } of [...claims]) answer({ kind: 'moved' });
    return waiting.map(({ connection }) => connection);
  }

  /** Those that wait are nobody's; they are the callee's of `onUnclaimed`. */
  close(): void {
    for (const { connection } of [...this.#waiting.values()]) this.#giveBack(connection, 'late');
    for (const claims of [...this.#claims.values()])
      for (const { answer } of [...claims]) answer({ kind: 'absent' });
  }

  #await(id: string, claimant: string): Promise<Claim<Connection>> {
    const owner = ownerOf(claimant);
    const inTheWay = this.#asking.inTheWayOf(owner, 1);
    if (inTheWay === undefined) return Promise.resolve({ kind: 'moved' });
    for (const { answer } of inTheWay) answer({ kind: 'moved' });
    const { promise, resolve } = Promise.withResolvers<Claim<Connection>>();
    const claims = this.#claims.get(id) ?? new Set();
    this.#claims.set(id, claims);
    const timer = setTimeout(
      () => claiming.answer({ kind: 'absent' }),
      this.#options.patienceMs ?? PATIENCE_MS,
    );
    const claiming: Claiming<Connection> = {
      claimant,
      answer: (claim) => {
        clearTimeout(timer);
        claims.delete(claiming);
        if (claims.size === 0) this.#claims.delete(id);
        this.#asking.remove(owner, claiming);
        resolve(claim);
      },
    };
    claims.add(claiming);
    this.#asking.put(owner, claiming, 1);
    return promise;
  }
}

function ownerOf(claimant = ''): string {
  return claimant.split(' ', 2).join(' ');
}
