import type { Socket } from 'node:net';
import { BATCH_BYTES } from './batch-size.ts';
import { giveBack, takeBatch } from './batches.ts';

/** Batches of one socket that are on their way at a time. */
const MAX_IN_FLIGHT = 4;
/** Of them, how many are left when those who wait are called: to stop and go again costs system calls. */
const CALL_AT = 1;

/** Bytes that the socket has been given, and the batch that they lie in. */
interface Flight {
  readonly batch: Buffer;
  readonly bytes: Buffer;
}

/**
 * Where bytes leave for a socket: gathered into batches, each written at once, in memory that is used again. Not a queue: while
 * four batches are on their way there is no room.
 */
export class Outlet {
  readonly #socket: Socket;
  readonly #onRoom: () => void;
  readonly #onSent: (() => void) | undefined;
  #batch: Buffer | undefined;
  #size = 0;
  /** Batches on their way, the oldest first. */
  readonly #flying: Flight[] = [];
  /** Somebody was told that there is no room. */
  #isWaitedFor = false;
  #isClosed = false;

  /**
   * @param socket stays the caller's
   * @param onRoom there is room again, after somebody was told that there is none, or not enough
   * @param onSent a batch is no longer ours: the network has it, or it was lost with the socket
   */
  constructor(socket: Socket, onRoom: () => void, onSent?: () => void) {
    this.#socket = socket;
    this.#onRoom = onRoom;
    this.#onSent = onSent;
    socket.once('close', () => this.#drop());
  }

  /** Bytes that can be appended now, in one piece. */
  get room(): number {
    if (this.#isClosed) return 0;
    if (this.#flying.length < MAX_IN_FLIGHT) return BATCH_BYTES - this.#size;
    this.#isWaitedFor = true;
    return 0;
  }

  /** Whether so many bytes can be appended, with batches leaving as they fill. */
  hasRoomFor(bytes: number): boolean {
    const isRoomy = (MAX_IN_FLIGHT - this.#flying.length) * BATCH_BYTES - this.#size >= bytes;
    this.#isWaitedFor ||= !isRoomy;
    return isRoomy;
  }

  get isEmpty(): boolean {
    return this.#size === 0;
  }

  /** Room for some bytes, to be written by the caller at once; no more than there is. */
  extend(bytes: number): { readonly batch: Buffer; readonly at: number } {
    this.#batch ??= takeBatch();
    const at = this.#size;
    this.#size += bytes;
    return { batch: this.#batch, at };
  }

  /** Appends a copy of as many of the bytes as there is room for; a batch that is full leaves. How many it took. */
  append(bytes: Buffer): number {
    let taken = 0;
    while (taken < bytes.length && this.room > 0) {
      const piece = bytes.subarray(taken, taken + this.room);
      const { batch, at } = this.extend(piece.length);
      piece.copy(batch, at);
      taken += piece.length;
      if (this.#size === BATCH_BYTES) this.flush();
    }
    return taken;
  }

  /** Sends the batch. */
  flush(): void {
    const batch = this.#batch;
    if (batch === undefined) return;
    const size = this.#size;
    this.#batch = undefined;
    this.#size = 0;
    const bytes = batch.subarray(0, size);
    const flight = { batch, bytes };
    this.#flying.push(flight);
    this.#socket.write(bytes, () => this.#sent(flight));
  }

  /** What is on its way, and what waits to be; good until the next turn. */
  pending(): readonly Buffer[] {
    const flying = this.#flying.map(({ bytes }) => bytes);
    return this.#batch === undefined ? flying : [...flying, this.#batch.subarray(0, this.#size)];
  }

  /** Bytes of memory in which something waits to leave. */
  held(): number {
    return (this.#flying.length + (this.#batch === undefined ? 0 : 1)) * BATCH_BYTES;
  }

  /** The socket has closed: what has not left will not. */
  #drop(): void {
    this.#isClosed = true;
    if (this.#batch !== undefined) giveBack(this.#batch);
    this.#batch = undefined;
    this.#size = 0;
  }

  #sent(flight: Flight): void {
    giveBack(flight.batch);
    this.#flying.splice(this.#flying.indexOf(flight), 1);
    this.#onSent?.();
    if (!this.#isWaitedFor || this.#flying.length > CALL_AT) return;
    this.#isWaitedFor = false;
    this.#onRoom();
  }
}
