import type { HeaderList } from '../exchange.ts';
import { heldInPieces } from '../memory/costs.ts';
import type { Attempt, AttemptFailure, AttemptHandlers, UpstreamRequest } from './attempt.ts';

/** Bytes of a body that are kept for a connection that is being made; the writer waits from then on. */
const HIGH_WATER = 32 * 1024;

/** A try that has no connection yet: what is written waits. Passes everything on to the real one once there is one. */
export class PendingAttempt implements Attempt {
  readonly #request: UpstreamRequest;
  readonly #handlers: AttemptHandlers;
  readonly #gaveUp = new AbortController();
  #real: Attempt | undefined;
  #isOver = false;
  #isPaused = false;
  #chunks: Buffer[] = [];
  #size = 0;
  #trailers: HeaderList | undefined;

  constructor(request: UpstreamRequest, handlers: AttemptHandlers) {
    this.#request = request;
    this.#handlers = handlers;
  }

  /** Aborted when nobody wants it any more. */
  get signal(): AbortSignal {
    return this.#gaveUp.signal;
  }

  get isWaiting(): boolean {
    return this.#real === undefined && !this.#isOver;
  }

  /**
   * There is a connection.
   * @returns false: the request has been given up meanwhile
   */
  begin(send: (request: UpstreamRequest, handlers: AttemptHandlers) => Attempt): boolean {
    if (!this.isWaiting) return false;
    const real = send(this.#request, this.#handlers);
    this.#real = real;
    if (this.#isPaused) real.pause();
    let hasRoom = true;
    for (const chunk of this.#chunks) hasRoom = real.write(chunk);
    const wasFull = this.#size >= HIGH_WATER;
    this.#chunks = [];
    this.#size = 0;
    if (this.#trailers !== undefined) real.end(this.#trailers);
    else if (wasFull && hasRoom) this.#handlers.onDrain();
    return true;
  }

  fail(failure: AttemptFailure): void {
    if (!this.isWaiting) return;
    this.#isOver = true;
    this.#chunks = [];
    this.#handlers.onFailure(failure);
  }

  write(chunk: Buffer): boolean {
    if (this.#real !== undefined) return this.#real.write(chunk);
    if (this.#isOver) return true;
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    return this.#size < HIGH_WATER;
  }

  end(trailers: HeaderList): void {
    if (this.#real !== undefined) this.#real.end(trailers);
    else this.#trailers = trailers;
  }

  abort(): void {
    if (this.#real !== undefined) this.#real.abort();
    else {
      this.#isOver = true;
      this.#chunks = [];
      this.#gaveUp.abort();
    }
  }

  held(): number {
    return this.#real === undefined ? heldInPieces(this.#size, this.#chunks.length) : this.#real.held();
  }

  pause(): void {
    this.#isPaused = true;
    this.#real?.pause();
  }

  resume(): void {
    this.#isPaused = false;
    this.#real?.resume();
  }
}
