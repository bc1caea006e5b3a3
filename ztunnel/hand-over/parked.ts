import type { CarriedConnection } from './carried.ts';

/** What can be claimed: by its ID, by one alone. */
export interface Claimable {
  readonly id: string;
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
  /** To be asked for again: this process goes away, and its successor has it or will; or too many wait. */
  | { readonly kind: 'moved' };

export interface ParkedOptions<Connection = CarriedConnection> {
  /** How long one waits to be claimed, and a claim for what it claims. Default 10 s. */
  readonly patienceMs?: number;
  /** Connections that may wait at a time, and claims. Default 10,000. */
  readonly limit?: number;
  /** Bytes of memory that wait with a connection, and that may wait with all of them. Default: any number. */
  readonly bytesOf?: (connection: Connection) => number;
  readonly limitBytes?: number;
  /** Nobody has claimed it in time (`late`), or there was no room: it and its descriptors are the callee's. */
  readonly onUnclaimed: (connection: Connection, why: 'late' | 'full') => void;
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

/** Connections that wait, on the main thread, for the other end of their tunnel to come back, whichever of both is first. */
export class Parked<Connection extends Claimable = CarriedConnection> {
  readonly #options: ParkedOptions<Connection>;
  readonly #waiting = new Map<string, Waiting<Connection>>();
  readonly #claims = new Map<string, Set<Claiming<Connection>>>();
  #claimCount = 0;
  #bytes = 0;
  #isMoving = false;

  constructor(options: ParkedOptions<Connection>) {
    this.#options = options;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Takes a connection over until it is claimed. */
  park(connection: Connection): void {
    const { patienceMs = PATIENCE_MS, limit = LIMIT, onUnclaimed } = this.#options;
    const { id } = connection;
    for (const claiming of this.#claims.get(id) ?? []) {
      const isTheirs = claiming.claimant === connection.claimant;
      claiming.answer(isTheirs ? { kind: 'claimed', connection } : { kind: 'refused' });
      if (isTheirs) return;
    }
    if (this.#waiting.size >= limit || this.#waiting.has(id) || !this.#hasRoomFor(connection)) {
      onUnclaimed(connection, 'full');
      return;
    }
    const timer = setTimeout(() => {
      this.#remove(id);
      onUnclaimed(connection, 'late');
    }, patienceMs);
    this.#waiting.set(id, { connection, timer });
    this.#bytes += this.#bytesOf(connection);
  }

  #bytesOf(connection: Connection): number {
    return this.#options.bytesOf?.(connection) ?? 0;
  }

  /** Whoever brings no bytes takes no room of theirs. */
  #hasRoomFor(connection: Connection): boolean {
    const bytes = this.#bytesOf(connection);
    return bytes === 0 || this.#bytes + bytes <= (this.#options.limitBytes ?? Infinity);
  }

  #remove(id: string): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    clearTimeout(waiting.timer);
    this.#waiting.delete(id);
    this.#bytes -= this.#bytesOf(waiting.connection);
  }

  /** Gives a connection to the one who may have it; waits for it if it is not there yet. @param claimant SPIFFE ID */
  async claim(id: string, claimant: string): Promise<Claim<Connection>> {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return this.#isMoving ? { kind: 'moved' } : this.#await(id, claimant);
    if (waiting.connection.claimant !== claimant) return { kind: 'refused' };
    this.#remove(id);
    return { kind: 'claimed', connection: waiting.connection };
  }

  /** Gives up those that wait, which are the caller's then, to another process; whoever claims one is sent there, too. */
  move(): readonly Connection[] {
    this.#isMoving = true;
    const waiting = [...this.#waiting.values()];
    for (const { connection } of waiting) this.#remove(connection.id);
    for (const claims of [...this.#claims.values()])
      for (const { answer } of [...claims]) answer({ kind: 'moved' });
    return waiting.map(({ connection }) => connection);
  }

  /** Those that wait are nobody's; they are the callee's of `onUnclaimed`. */
  close(): void {
    for (const { connection } of [...this.#waiting.values()]) {
      this.#remove(connection.id);
      this.#options.onUnclaimed(connection, 'late');
    }
    for (const claims of this.#claims.values()) for (const { answer } of claims) answer({ kind: 'absent' });
  }

  #await(id: string, claimant: string): Promise<Claim<Connection>> {
    const { patienceMs = PATIENCE_MS, limit = LIMIT } = this.#options;
    if (this.#claimCount >= limit) return Promise.resolve({ kind: 'moved' });
    const { promise, resolve } = Promise.withResolvers<Claim<Connection>>();
    const claims = this.#claims.get(id) ?? new Set();
    this.#claims.set(id, claims);
    const timer = setTimeout(() => claiming.answer({ kind: 'absent' }), patienceMs);
    const claiming: Claiming<Connection> = {
      claimant,
      answer: (claim) => {
        clearTimeout(timer);
        claims.delete(claiming);
        if (claims.size === 0) this.#claims.delete(id);
        this.#claimCount -= 1;
        resolve(claim);
      },
    };
    claims.add(claiming);
    this.#claimCount += 1;
    return promise;
  }
}
