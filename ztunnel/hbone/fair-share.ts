import type { Socket } from 'node:net';
import { atTurnEnd, currentTurn } from './turn.ts';

/** Bytes that one party may read in a turn of the event loop while others want theirs. */
const TURN_BYTES = 256 * 1024;
/** Of those that have to wait for their turn, how many sockets read in one, and how many pieces of work are done. */
const READERS_A_TURN = 2;
const WORKS_A_TURN = 1;
/** How long ago another party may have been there for there to be others at all. */
const CONTENDED_MS = 200;

/** Who reads, and can be told to wait. */
export interface Reader {
  readonly rest: () => void;
  /** Reads again, if it still wants to. */
  readonly goOn: () => void;
}

/** The parties that were there last in this thread, and when. */
let latest: FairShare | undefined;
let before: FairShare | undefined;
let latestAt = 0;
let beforeAt = 0;

/**
 * What one party (a pod) has of this thread's time. Alone it takes what it wants. While another is there as well, it reads so much in a
 * turn of the event loop and no more: what it has beyond waits, and takes turns among itself.
 */
export class FairShare {
  #turn = -1;
  #bytes = 0;
  #works = 0;
  /** The first is the next. */
  readonly #resting = new Set<Reader>();
  #waiting: (() => void)[] = [];
  #isPlanned = false;

  /** The reader has read so many bytes. */
  take(reader: Reader, bytes: number): void {
    if (this.#turn !== currentTurn()) this.#begin();
    this.#bytes += bytes;
    if (this.#bytes <= TURN_BYTES || !this.#isContended) return;
    reader.rest();
    this.#resting.add(reader);
    this.#plan();
  }

  /** Does the work now, or in a turn to come when enough of this party's has been done in this one. */
  run(work: () => void): void {
    if (this.#turn !== currentTurn()) this.#begin();
    this.#works += 1;
    if (this.#waiting.length === 0 && (this.#works <= WORKS_A_TURN || !this.#isContended)) {
      work();
      return;
    }
    this.#waiting.push(work);
    this.#plan();
  }

  /** The first of this turn. */
  #begin(): void {
    this.#turn = currentTurn();
    this.#bytes = 0;
    this.#works = 0;
    const now = performance.now();
    if (latest !== this) {
      before = latest;
      beforeAt = latestAt;
      latest = this;
    }
    latestAt = now;
  }

  get #isContended(): boolean {
    if (latest !== this) return latest !== undefined;
    return before !== undefined && latestAt - beforeAt < CONTENDED_MS;
  }

  #plan(): void {
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    atTurnEnd(() => this.#nextTurn());
  }

  /** After everybody's events of the last turn, and before those of the next. */
  #nextTurn(): void {
    this.#isPlanned = false;
    this.#begin();
    const isContended = this.#isContended;
    let readers = isContended ? READERS_A_TURN : this.#resting.size;
    for (const reader of this.#resting) {
      if (readers-- === 0) break;
      this.#resting.delete(reader);
      reader.goOn();
    }
    const works = this.#waiting.splice(0, isContended ? WORKS_A_TURN : this.#waiting.length);
    this.#works = works.length;
    for (const work of works) work();
    if (this.#resting.size > 0 || this.#waiting.length > 0) this.#plan();
  }
}

const shares = new WeakMap<Socket, FairShare>();

/** Whose share a socket's reads are of. */
export function assignShare(socket: Socket, share: FairShare): void {
  shares.set(socket, share);
}

/** Undefined: nobody's. */
export function shareOf(socket: Socket): FairShare | undefined {
  return shares.get(socket);
}
