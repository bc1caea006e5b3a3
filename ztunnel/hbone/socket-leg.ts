import type { Socket } from 'node:net';
import { ByteQueue } from './byte-queue.ts';
import type { Leg, LegEvents } from './leg.ts';
import { Outlet } from './outlet.ts';
import { readInto } from './read-into.ts';
import { atTurnEnd, currentTurn } from './turn.ts';

/** All sockets of a thread read into this, one after the other: what came is sent on, or copied, before the next. */
const inlet: Buffer = Buffer.allocUnsafeSlow(128 * 1024);
/** Bytes that are written at once, when they are the first of their turn. */
const SMALL_BYTES = 4096;

/**
 * A TCP socket as one end of a splice. It must have been made with `allowHalfOpen`, and belongs to the leg.
 */
export class SocketLeg implements Leg {
  readonly #socket: Socket;
  readonly #outlet: Outlet;
  #events: LegEvents | undefined;
  /** Bytes for which there is no room in the outlet. */
  readonly #waiting = new ByteQueue();
  #isEnding = false;
  #hasEnded = false;
  #hasFinished = false;
  /** Turn of the event loop in which bytes were last written. */
  #lastTurn = -1;
  #isFlushPlanned = false;
  /** It broke before `start`. */
  #failure: string | undefined;
  #onFlushed: (() => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.#outlet = new Outlet(
      socket,
      () => this.#onRoom(),
      () => this.#noteSent(),
    );
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
    const onEnd = (): void => {
      this.#hasEnded = true;
      this.#events?.onEnd();
    };
    // A socket without a byte in it says that it has ended once, whether somebody reads it or not.
    if (socket.readableEnded) process.nextTick(onEnd);
    else socket.on('end', onEnd);
    socket.on('finish', () => {
      this.#hasFinished = true;
      this.#events?.onFinish();
    });
    const onBytes = (bytes: Buffer): void => this.#events?.onData(bytes);
    if (!readInto(socket, inlet, onBytes)) socket.on('data', onBytes);
  }

  /** A few bytes that are the first in a turn leave at once; what else comes in that turn leaves together, at its end. */
  write(bytes: Buffer): boolean {
    const turn = currentTurn();
    const isFirst = this.#lastTurn !== turn;
    this.#lastTurn = turn;
    if (isFirst && bytes.length <= SMALL_BYTES && this.#socket.writableLength === 0 && this.#outlet.isEmpty) {
      this.#socket.write(Buffer.from(bytes), this.#onFlushed && (() => this.#noteSent()));
      return true;
    }
    const taken = this.#waiting.length === 0 ? this.#outlet.append(bytes) : 0;
    if (!this.#isFlushPlanned && !this.#outlet.isEmpty) {
      this.#isFlushPlanned = true;
      atTurnEnd(() => this.#flush());
    }
    if (taken === bytes.length) return true;
    this.#waiting.push(bytes.subarray(taken));
    return false;
  }

  end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#endWhenSent();
  }

  abort(): void {
    this.#events = undefined;
    this.#waiting.clear();
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

  /** Calls back whenever the network has all that has been written so far. To be called before the first write. */
  whenFlushed(callback: () => void): void {
    this.#onFlushed = callback;
  }

  #noteSent(): void {
    if (this.#onFlushed === undefined || this.#socket.destroyed || this.#socket.errored !== null) return;
    const isFlushed = this.#socket.writableLength === 0 && this.#outlet.isEmpty && this.#waiting.length === 0;
    if (isFlushed) this.#onFlushed();
  }

  #flush(): void {
    this.#isFlushPlanned = false;
    this.#outlet.flush();
  }

  #onRoom(): void {
    if (this.#socket.destroyed) return;
    for (let taken = 1; taken > 0 && this.#waiting.length > 0; ) {
      taken = this.#outlet.append(this.#waiting.peek());
      this.#waiting.drop(taken);
    }
    this.#outlet.flush();
    if (this.#waiting.length > 0) return;
    this.#events?.onDrain();
    if (this.#isEnding) this.#endWhenSent();
  }

  #endWhenSent(): void {
    if (this.#waiting.length > 0) return;
    this.#outlet.flush();
    this.#socket.end();
  }

  #lose(reason: string): void {
    const events = this.#events;
    // Also when all is well: the socket's handle may outlive it, and would keep all that the events reach.
    this.#events = undefined;
    if (this.#hasEnded && this.#hasFinished) return;
    this.#failure ??= reason;
    this.#waiting.clear();
    events?.onAbort(reason);
  }
}
