import type { Socket } from 'node:net';
import { setAbruptClose } from '../capture/abrupt-close.ts';
import { ByteQueue } from './byte-queue.ts';
import type { DetachableLeg, DetachedSocket } from './detached-socket.ts';
import { type Reader, shareOf } from './fair-share.ts';
import type { LegEvents } from './leg.ts';
import { Outlet } from './outlet.ts';
import { readInto } from './read-into.ts';
import { atTurnEnd, currentTurn } from './turn.ts';

/** All sockets of a thread read into this, one after the other: what came is sent on, or copied, before the next. */
const inlet: Buffer = Buffer.allocUnsafeSlow(128 * 1024);
/** Bytes that are written at once, when they are the first of their turn. */
const SMALL_BYTES = 4096;
const NO_BYTES: Buffer = Buffer.alloc(0);

/** What of a socket's handle Node.js shows nobody. */
interface Handle {
  readonly fd?: number;
  /** Bytes that it was given to send, and of them those that the kernel has not taken yet. */
  readonly bytesWritten?: number;
  readonly writeQueueSize?: number;
}

/**
 * A TCP socket as one end of a splice. It must have been made with `allowHalfOpen`, and belongs to the leg. Until our end has been
 * sent, whatever closes it resets it: also the kernel, when this process is killed.
 */
export class SocketLeg implements DetachableLeg, Reader {
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
  /** The other end has no room. */
  #isPaused = false;
  #isResting = false;
  /** Nothing is read any more. */
  #isStopped = false;
  #canDetach = false;
  #isDetached = false;
  /** A few bytes that the kernel did not take at once. */
  #small: Buffer | undefined;
  /** It broke before `start`. */
  #failure: string | undefined;
  #onFlushed: (() => void) | undefined;

  /** @param hasFinished its outgoing direction had ended when it was attached */
  constructor(socket: Socket, hasFinished = false) {
    this.#socket = socket;
    this.#hasFinished = hasFinished;
    this.#isEnding = hasFinished;
    if (!hasFinished) this.#setAbruptClose(true);
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
    if (this.#hasFinished) process.nextTick(() => this.#events?.onFinish());
    else {
      socket.on('finish', () => {
        this.#hasFinished = true;
        // What is on the way, and our end behind it, is to arrive when the socket is closed.
        this.#setAbruptClose(false);
        this.#events?.onFinish();
      });
    }
    const share = shareOf(socket);
    const onBytes = (bytes: Buffer): void => {
      this.#events?.onData(bytes);
      share?.take(this, bytes.length);
    };
    this.#canDetach = readInto(socket, inlet, onBytes);
    if (!this.#canDetach) socket.on('data', onBytes);
  }

  get descriptor(): number | 'closed' | undefined {
    if (this.#hasEnded && this.#hasFinished) return 'closed';
    const fd = this.#socket.destroyed ? undefined : handleOf(this.#socket)?.fd;
    return this.#canDetach && !this.#isDetached && fd !== undefined && fd >= 0 ? fd : undefined;
  }

  stop(): void {
    this.#isStopped = true;
    this.#socket.pause();
  }

  detach(fd: number | undefined): DetachedSocket {
    this.stop();
    this.#isDetached = true;
    this.#events = undefined;
    this.#outlet.flush();
    const unsent = this.#unsent();
    this.#waiting.clear();
    this.#socket.destroy();
    return { fd, hasEnded: this.#hasEnded, hasFinished: this.#hasFinished, unsent };
  }

  /** A few bytes that are the first in a turn leave at once; what else comes in that turn leaves together, at its end. */
  write(bytes: Buffer): boolean {
    const turn = currentTurn();
    const isFirst = this.#lastTurn !== turn;
    this.#lastTurn = turn;
    if (isFirst && bytes.length <= SMALL_BYTES && this.#socket.writableLength === 0 && this.#outlet.isEmpty) {
      const copy = Buffer.from(bytes);
      this.#socket.write(copy, this.#onFlushed && (() => this.#noteSent()));
      this.#small = this.#socket.writableLength > 0 ? copy : undefined;
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
    if (this.#isDetached) return;
    this.#events = undefined;
    this.#waiting.clear();
    if (this.#hasEnded && this.#hasFinished) this.#socket.destroy();
    else this.#socket.resetAndDestroy();
  }

  pause(): void {
    this.#isPaused = true;
    this.#socket.pause();
  }

  resume(): void {
    this.#isPaused = false;
    if (!this.#isStopped && !this.#isResting) this.#socket.resume();
  }

  /** Others have their turn. */
  rest(): void {
    this.#isResting = true;
    this.#socket.pause();
  }

  goOn(): void {
    this.#isResting = false;
    if (!this.#isPaused && !this.#isStopped && !this.#socket.destroyed) this.#socket.resume();
  }

  held(): number {
    return this.#waiting.memory + this.#outlet.held();
  }

  bytesRead(): number {
    return this.#socket.bytesRead;
  }

  /** Calls back whenever the network has all that has been written so far. To be called before the first write. */
  whenFlushed(callback: () => void): void {
    this.#onFlushed = callback;
  }

  #setAbruptClose(isAbrupt: boolean): void {
    const fd = handleOf(this.#socket)?.fd;
    if (fd !== undefined && fd >= 0) setAbruptClose(fd, isAbrupt);
  }

  /** A copy of what has been written and is not the kernel's yet. */
  #unsent(): Buffer {
    const handle = handleOf(this.#socket);
    const sent = (handle?.bytesWritten ?? 0) - (handle?.writeQueueSize ?? 0);
    const left = handle === undefined ? 0 : this.#socket.bytesWritten - sent;
    const written = [this.#small ?? NO_BYTES, ...this.#outlet.pending()];
    const waiting = Buffer.allocUnsafeSlow(this.#waiting.length);
    this.#waiting.take(waiting, 0, waiting.length);
    return Buffer.concat([lastOf(written, left), waiting]);
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

function handleOf(socket: Socket): Handle | undefined {
  return (socket as Socket & { readonly _handle?: Handle | null })._handle ?? undefined;
}

/** The last so many bytes: what comes before is the kernel's, of which nobody has been told yet. */
function lastOf(buffers: readonly Buffer[], bytes: number): Buffer {
  const all = Buffer.concat(buffers);
  return all.subarray(all.length - bytes);
}
