import type { BodySource, HeaderList } from '../exchange.ts';
import { heldInPieces } from '../memory/costs.ts';
import type { Attempt } from './attempt.ts';

/** What of a body is kept for a retry, in bytes; a larger one can be sent only once. */
export const REPLAY_BYTES: number = 64 * 1024;

/** Someone who gets a copy of a body, and is never waited for: a mirror. */
export interface BodyCopy {
  readonly write: (chunk: Buffer) => void;
  readonly end: (trailers: HeaderList) => void;
  /** It will not be complete. */
  readonly abort: () => void;
}

/**
 * A request's body on its way to one try after the other. It is streamed to the first at once, and kept for the next as long as
 * it is small. It is read only as fast as the current try takes it.
 */
export class RequestBody {
  readonly #source: BodySource | undefined;
  readonly #copies: readonly BodyCopy[];
  readonly #onLost: () => void;
  #kept: Buffer[] = [];
  #keptBytes = 0;
  /** Whether all that has come is still there. */
  #isKept = true;
  #hasStarted = false;
  #isPaused = false;
  #trailers: HeaderList | undefined;
  #attempt: Attempt | undefined;
  #isOver = false;

  /**
   * @param source undefined: there is none
   * @param onLost the body will not be complete
   */
  constructor(source: BodySource | undefined, copies: readonly BodyCopy[], onLost: () => void) {
    this.#source = source;
    this.#copies = copies;
    this.#onLost = onLost;
    if (source === undefined) this.#trailers = [];
  }

  /**
   * Whether another try can have all of it. While there is no connection a little more is kept than a retry may need later: then
   * nothing has been sent at all.
   */
  canBeSentAgain(wasNeverSent: boolean): boolean {
    return this.#isKept && (wasNeverSent || this.#keptBytes <= REPLAY_BYTES);
  }

  /** Bytes of memory that what is kept takes. */
  held(): number {
    return heldInPieces(this.#isKept ? this.#keptBytes : 0, this.#kept.length);
  }

  /** Sends all that has come, and what will, to a try. The one before gets no more. */
  sendTo(attempt: Attempt): void {
    this.#attempt = attempt;
    if (this.#source === undefined) return;
    let hasRoom = true;
    for (const chunk of this.#kept) hasRoom = attempt.write(chunk);
    if (this.#trailers !== undefined) {
      attempt.end(this.#trailers);
      return;
    }
    if (!this.#hasStarted) this.#start(this.#source);
    else if (hasRoom) this.resume();
  }

  /** The current try takes no more: what comes is kept for the next, and then waits. */
  detach(): void {
    this.#attempt = undefined;
  }

  /** There will be no other try. */
  forget(): void {
    this.#isKept = false;
    this.#kept = [];
  }

  /** Nobody wants the rest of it: what has begun to come is read and dropped. */
  discard(): void {
    this.#isOver = true;
    this.#loseCopies();
    this.forget();
    this.#attempt = undefined;
    this.resume();
  }

  /** The try takes more. */
  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#source?.resume();
  }

  #start(source: BodySource): void {
    this.#hasStarted = true;
    source.start({
      onData: (chunk) => this.#take(chunk),
      onEnd: (trailers) => {
        this.#trailers = trailers;
        for (const copy of this.#copies) copy.end(trailers);
        this.#attempt?.end(trailers);
      },
      onAbort: () => {
        this.#loseCopies();
        if (!this.#isOver) this.#onLost();
      },
    });
  }

  #take(chunk: Buffer): void {
    if (this.#isOver) return;
    for (const copy of this.#copies) copy.write(chunk);
    this.#keep(chunk);
    if (this.#attempt?.write(chunk) === false) this.#pause();
    else if (this.#attempt === undefined && this.#keptBytes >= REPLAY_BYTES) this.#pause();
  }

  /** Up to one piece above the limit: those who have no connection yet ask to wait before that. */
  #keep(chunk: Buffer): void {
    if (!this.#isKept) return;
    if (this.#keptBytes >= REPLAY_BYTES && this.#attempt !== undefined) {
      this.forget();
      return;
    }
    this.#keptBytes += chunk.length;
    this.#kept.push(chunk);
  }

  #loseCopies(): void {
    if (this.#source === undefined || this.#trailers !== undefined) return;
    for (const copy of this.#copies) copy.abort();
  }

  #pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#source?.pause();
  }
}
