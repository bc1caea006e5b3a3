import { ByteQueue } from './byte-queue.ts';
import { type ErrorCode, nameOfCode } from './error.ts';
import type { Field } from './hpack-tables.ts';
import type { Leg, LegEvents } from './leg.ts';
import { isScarce } from './memory-budget.ts';

/** Bytes queued for sending from which on the writer is asked to wait, and below which it may go on. */
const HIGH_WATER = 256 * 1024;
const LOW_WATER = 64 * 1024;

/** What a stream asks of its connection. */
export interface StreamOwner {
  /** Sends bytes of a stream that has none waiting, as many as can go now: how many. */
  readonly sendNow: (stream: TunnelStream, bytes: Buffer) => number;
  /** Whether a large piece could go now. */
  readonly isRoomy: () => boolean;
  /** The stream has something waiting to be sent, or waits for room. */
  readonly send: (stream: TunnelStream) => void;
  /** Bytes were taken in, or dropped: the peer may send as many again. */
  readonly credit: (stream: TunnelStream, bytes: number) => void;
  /** Bytes wait for a reader that is slow (or, negative, do so no longer). */
  readonly changeWaiting: (bytes: number) => void;
  readonly reset: (stream: TunnelStream, code: ErrorCode) => void;
  /** Both directions have ended. */
  readonly ended: (stream: TunnelStream) => void;
}

/** How the peer answered a request, or why it did not. */
export type Answer =
  | { readonly kind: 'answered'; readonly fields: readonly Field[]; readonly endStream: boolean }
  /** `isRetryable`: the peer has not looked at the request, or nobody can tell. */
  | { readonly kind: 'failed'; readonly reason: string; readonly isRetryable: boolean };

type Direction = 'open' | 'ending' | 'ended';

/** Whoever has given a stream up hears nothing more of it. */
const NOBODY: LegEvents = {
  onData: () => undefined,
  onEnd: () => undefined,
  onDrain: () => undefined,
  onFinish: () => undefined,
  onAbort: () => undefined,
};

/**
 * One CONNECT stream, at either end. What is public beyond {@link Leg} is for the connection that owns it.
 */
export class TunnelStream implements Leg {
  readonly id: number;
  readonly #owner: StreamOwner;
  #events: LegEvents | undefined;

  /** Bytes that the peer takes now. */
  sendWindow: number;
  readonly #queue = new ByteQueue();
  #isFull = false;
  #outgoing: Direction = 'open';
  /** Whether the connection has it in its list of streams to send for. */
  isScheduled = false;

  /** Bytes that the peer may still send. */
  receiveWindow: number;
  /** Of them, those that it has not been told about yet. */
  uncredited = 0;
  readonly #waiting = new ByteQueue();
  #isPaused = true;
  #incoming: Direction = 'open';
  #bytesRead = 0;
  /** The peer takes no more, or all is over: nothing is sent and nothing reported. */
  #isClosed = false;
  /** It broke before `start`. */
  #failure: string | undefined;
  /** Who waits for the answer to its request. */
  onAnswer: ((answer: Answer) => void) | undefined;
  /** ID of the connection that it carries, where that can be handed over. */
  connectionId: string | undefined;
  #bytesWritten = 0;
  #onFlushed: (() => void)[] | undefined;

  constructor(
    id: number,
    owner: StreamOwner,
    windows: { readonly sendWindow: number; readonly receiveWindow: number },
  ) {
    this.id = id;
    this.#owner = owner;
    this.sendWindow = windows.sendWindow;
    this.receiveWindow = windows.receiveWindow;
  }

  start(events: LegEvents): void {
    this.#events = events;
    if (this.#failure !== undefined) {
      this.#abortLocally(this.#failure);
      return;
    }
    if (this.#outgoing === 'ended') events.onFinish();
    this.resume();
  }

  write(bytes: Buffer): boolean {
    if (this.#isClosed) {
      this.#abortLocally('the peer takes no more data');
      return true;
    }
    this.#bytesWritten += bytes.length;
    const sent = this.#queue.length === 0 ? this.#owner.sendNow(this, bytes) : 0;
    if (sent < bytes.length) this.#queue.push(bytes.subarray(sent));
    // Where there is no room for the next read, that waits, rather than being copied into the queue.
    this.#isFull = !this.#owner.isRoomy() || this.#queue.length >= (isScarce() ? LOW_WATER : HIGH_WATER);
    if (this.#isFull || sent < bytes.length) this.#owner.send(this);
    return !this.#isFull;
  }

  end(): void {
    if (this.#outgoing !== 'open') return;
    this.#outgoing = 'ending';
    if (this.#isClosed) this.#finish();
    else this.#owner.send(this);
  }

  /** RST_STREAM; for a tunnel CONNECT_ERROR says that TCP at this end was reset (RFC 9113, 8.5). */
  abort(code: ErrorCode = 'CONNECT_ERROR'): void {
    const isOver = this.#isClosed;
    this.#isClosed = true;
    this.#events = undefined;
    this.#drop();
    if (!isOver) this.#owner.reset(this, code);
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    while (!this.#isPaused && this.#events !== undefined && this.#waiting.length > 0) {
      this.#waiting.shift((piece) => {
        this.#owner.changeWaiting(-piece.length);
        this.#owner.credit(this, piece.length);
        this.#events?.onData(piece);
      });
    }
    if (!this.#isPaused && this.#events !== undefined) this.#endIncoming();
  }

  bytesRead(): number {
    return this.#bytesRead;
  }

  /** Bytes that were given to `write` so far. */
  get bytesWritten(): number {
    return this.#bytesWritten;
  }

  /** Of them, those that wait for room. */
  get bytesQueued(): number {
    return this.#queue.length;
  }

  /** Bytes that have come in and that its reader has not taken yet. */
  get bytesWaiting(): number {
    return this.#waiting.length;
  }

  /** Whether its own direction has ended, with END_STREAM on its way. */
  get hasSentEnd(): boolean {
    return this.#outgoing === 'ended';
  }

  /**
   * Calls back once, perhaps at once, when all that was written is on its way, and the end if there was one: whatever is sent on
   * any stream of the session after that arrives later. Never if the stream breaks before.
   */
  whenFlushed(callback: () => void): void {
    if (this.#isFlushed) callback();
    else this.#onFlushed = [...(this.#onFlushed ?? []), callback];
  }

  /** Gives up a stream on which nothing is on the way: it ends, and nobody is told how. */
  release(): void {
    if (this.#isClosed) return;
    this.#events = NOBODY;
    this.end();
    this.resume();
  }

  /** Bytes of memory in which data waits, either way. */
  held(): number {
    return this.#queue.memory + this.#waiting.memory;
  }

  /** How much of the queue can go now, within a limit, and whether the stream ends with it: to be taken next. */
  plan(limit: number): { readonly bytes: number; readonly end: boolean } {
    const bytes = Math.min(this.#queue.length, Math.max(0, this.sendWindow), limit);
    const end = this.#outgoing === 'ending' && this.#queue.length === bytes && !this.#isClosed;
    if (end) this.#outgoing = 'ended';
    return { bytes, end };
  }

  /** Copies the bytes that were planned. */
  take(into: Buffer, at: number, bytes: number): void {
    this.sendWindow -= bytes;
    this.#queue.take(into, at, bytes);
  }

  /** To be called when what was taken is on its way. Whether the stream waits for more room still. */
  sent(end: boolean): boolean {
    if (end) this.#finish();
    if (this.#onFlushed !== undefined) this.#tellFlushed();
    if (!this.#isFull || this.#queue.length > LOW_WATER) return false;
    this.#isFull = !this.#owner.isRoomy();
    if (!this.#isFull) this.#events?.onDrain();
    return this.#isFull;
  }

  /** DATA came in. */
  receive(bytes: Buffer): void {
    if (this.#isClosed) return;
    this.#bytesRead += bytes.length;
    if (!this.#isPaused && this.#events !== undefined) {
      this.#owner.credit(this, bytes.length);
      this.#events.onData(bytes);
      return;
    }
    this.#waiting.push(bytes);
    this.#owner.changeWaiting(bytes.length);
  }

  /** END_STREAM came in. */
  receiveEnd(): void {
    if (this.#incoming !== 'open' || this.#isClosed) return;
    this.#incoming = 'ending';
    if (!this.#isPaused) this.#endIncoming();
  }

  /**
   * RST_STREAM came in. After END_STREAM, NO_ERROR and CANCEL are how a stock peer says that it has read enough, unless bytes of
   * ours are left that it will not have. Before END_STREAM they are how it drops a tunnel: what is missing has to show.
   */
  receiveReset(code: number): void {
    const isHarmless = (code === 0 || code === 8) && this.hasReceivedEnd && this.#queue.length === 0;
    if (!isHarmless) {
      this.lose(`stream reset by the peer: ${nameOfCode(code)}`);
      return;
    }
    this.receiveEnd();
    this.#isClosed = true;
    if (this.#outgoing === 'ending') this.#finish();
  }

  /** The stream is over before its end. */
  lose(reason: string): void {
    this.#isClosed = true;
    this.#abortLocally(reason);
  }

  /** Whether there is anything for which it may have to wait its turn: bytes, an end, or a writer that waits for room. */
  get wantsToSend(): boolean {
    return !this.#isClosed && (this.#queue.length > 0 || this.#outgoing === 'ending' || this.#isFull);
  }

  /** Whether nothing is sent on it any more, nor reported. */
  get isOver(): boolean {
    return this.#isClosed;
  }

  get hasReceivedEnd(): boolean {
    return this.#incoming !== 'open';
  }

  #abortLocally(reason: string): void {
    this.#failure ??= reason;
    const events = this.#events;
    this.#events = undefined;
    this.#drop();
    events?.onAbort(reason);
  }

  get #isFlushed(): boolean {
    return this.#queue.length === 0 && this.#outgoing !== 'ending';
  }

  #tellFlushed(): void {
    if (!this.#isFlushed || this.#isClosed) return;
    const callbacks = this.#onFlushed ?? [];
    this.#onFlushed = undefined;
    for (const callback of callbacks) callback();
  }

  #drop(): void {
    this.#onFlushed = undefined;
    this.#queue.clear();
    if (this.#waiting.length > 0) this.#owner.changeWaiting(-this.#waiting.length);
    this.#waiting.clear();
  }

  #endIncoming(): void {
    if (this.#incoming !== 'ending') return;
    this.#incoming = 'ended';
    this.#events?.onEnd();
    this.#closeWhenBothEnded();
    this.#forgetWhenBothEnded();
  }

  #finish(): void {
    this.#outgoing = 'ended';
    this.#events?.onFinish();
    this.#closeWhenBothEnded();
    this.#forgetWhenBothEnded();
  }

  #closeWhenBothEnded(): void {
    if (this.#outgoing === 'ended' && this.#incoming !== 'open' && !this.#isClosed) {
      this.#isClosed = true;
      this.#owner.ended(this);
    }
  }

  /**
   * Lets go of what the stream knew. Garbage that is old keeps alive what it refers to, and a `Map` that has grown leaves its
   * former self as such garbage, with all that was in it.
   */
  #forgetWhenBothEnded(): void {
    if (this.#outgoing === 'ended' && this.#incoming === 'ended') this.#events = undefined;
  }
}
