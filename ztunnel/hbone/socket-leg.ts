import type { Socket } from 'node:net';
import type { Leg, LegEvents } from './leg.ts';
import { atTurnEnd, currentTurn } from './turn.ts';

/**
 * A TCP socket as one end of a splice. It must have been made with `allowHalfOpen`, and belongs to the leg, which has
 * been listening for its errors since it was made.
 */
export class SocketLeg implements Leg {
  readonly #socket: Socket;
  #events: LegEvents | undefined;
  #hasEnded = false;
  #hasFinished = false;
  /** Turn of the event loop in which bytes were last written. */
  #lastTurn = -1;
  #isCorked = false;
  /** It broke before `start`. */
  #failure: string | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', (error) => this.#lose(error.message));
    socket.on('close', () => this.#lose('closed'));
  }

  start(events: LegEvents): void {
    this.#events = events;
    const socket = this.#socket;
    if (this.#failure !== undefined) {
      this.#lose(this.#failure);
      return;
    }
    socket.on('data', (bytes: Buffer) => this.#events?.onData(bytes));
    socket.on('end', () => {
      this.#hasEnded = true;
      this.#events?.onEnd();
    });
    socket.on('drain', () => this.#events?.onDrain());
    socket.on('finish', () => {
      this.#hasFinished = true;
      this.#events?.onFinish();
    });
  }

  /** The first bytes of a turn leave at once; what else comes in that turn leaves together, at its end. */
  write(bytes: Buffer): boolean {
    const turn = currentTurn();
    if (this.#lastTurn !== turn) this.#lastTurn = turn;
    else if (!this.#isCorked) {
      this.#isCorked = true;
      this.#socket.cork();
      atTurnEnd(() => this.#uncork());
    }
    return this.#socket.write(bytes);
  }

  end(): void {
    this.#uncork();
    this.#socket.end();
  }

  abort(): void {
    this.#events = undefined;
    if (this.#hasEnded && this.#hasFinished) this.#socket.destroy();
    else this.#socket.resetAndDestroy();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  bytesRead(): number {
    return this.#socket.bytesRead;
  }

  #uncork(): void {
    if (!this.#isCorked) return;
    this.#isCorked = false;
    this.#socket.uncork();
  }

  #lose(reason: string): void {
    if (this.#hasEnded && this.#hasFinished) return;
    this.#failure ??= reason;
    const events = this.#events;
    this.#events = undefined;
    events?.onAbort(reason);
  }
}
