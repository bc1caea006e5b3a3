import type { Socket } from 'node:net';

/** Size of what is written at a time; TLS and the kernel have no use for more. */
const BATCH_BYTES = 256 * 1024;
/** Batches of one socket that are on their way. */
const MAX_IN_FLIGHT = 2;
/** Batches that are kept for the next who needs one. */
const MAX_SPARE = 64;

/** Batches that nobody uses: the last one back is the first to go, while it is still in the processor's cache. */
const spare: Buffer[] = [];

/**
 * Where bytes leave for a socket: gathered into batches, each written at once, in memory that is used again. Not a queue: while
 * two batches are on their way there is no room.
 */
export class Outlet {
  readonly #socket: Socket;
  readonly #onRoom: () => void;
  #batch: Buffer | undefined;
  #size = 0;
  #inFlight = 0;

  /**
   * @param socket stays the caller's
   * @param onRoom there is room again, after there was none
   */
  constructor(socket: Socket, onRoom: () => void) {
    this.#socket = socket;
    this.#onRoom = onRoom;
  }

  /** Bytes that can be appended now. */
  get room(): number {
    return this.#inFlight < MAX_IN_FLIGHT ? BATCH_BYTES - this.#size : 0;
  }

  get isEmpty(): boolean {
    return this.#size === 0;
  }

  /** Room for some bytes, to be written by the caller at once; no more than there is. */
  extend(bytes: number): { readonly batch: Buffer; readonly at: number } {
    this.#batch ??= spare.pop() ?? Buffer.allocUnsafeSlow(BATCH_BYTES);
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
    this.#inFlight += 1;
    this.#socket.write(batch.subarray(0, size), () => this.#sent(batch));
  }

  #sent(batch: Buffer): void {
    if (spare.length < MAX_SPARE) spare.push(batch);
    const wasFull = this.#inFlight >= MAX_IN_FLIGHT;
    this.#inFlight -= 1;
    if (wasFull) this.#onRoom();
  }
}
