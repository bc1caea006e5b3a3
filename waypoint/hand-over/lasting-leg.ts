import { ByteQueue } from '#ztunnel/hbone/byte-queue.ts';
import type { LegEvents } from '#ztunnel/hbone/leg.ts';
import type { HeldTunnel, Settled } from '#ztunnel/hbone/session-hand-over.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';
import type { TunnelLeg } from '../tunnel-duplex.ts';

/** What is told of a leg that has lost its stream to a hand-over. */
export interface LastingLegOptions {
  /** It has left its stream. Another takes its place by `attach`, or it is given up by `lose`. */
  readonly onAway: (settled: Settled) => void;
  /** It goes on with its stream after all. */
  readonly onStays?: () => void;
}

/** What a leg has in hand while it has no stream. */
export interface LegState {
  /** Came in, and has not been taken yet. */
  readonly early: Buffer;
  /** Was written, and has not gone out yet. */
  readonly pending: Buffer;
  /** Nothing more will come in. */
  readonly hasEnded: boolean;
  /** Nothing more will be written. */
  readonly isEnding: boolean;
}

/** What a peer may have sent before it heard that it has to stop: its window, and what it had queued. */
const MOST_AFTER_HALT = 8 * 1024 * 1024;
/** What is taken without a stream before who writes has to wait: an answer that is whole lets its tunnel go. */
const ROOM_WITHOUT_STREAM = 256 * 1024;

/**
 * A CONNECT stream that may be replaced by another when the process at its other end is: whoever reads and writes sees that it
 * stands still for a moment, and nothing else. While there is no stream, what is written waits.
 */
export class LastingLeg implements TunnelLeg {
  readonly #options: LastingLegOptions;
  #stream: TunnelStream | undefined;
  #events: LegEvents | undefined;
  readonly #early = new ByteQueue();
  readonly #pending = new ByteQueue();
  /** Which of its streams it listens to. */
  #listened: TunnelStream | undefined;
  #isHalted = false;
  /** What comes in stays here. */
  #isFrozen = false;
  #isPaused = true;
  #hasEnded = false;
  #isEndTold = false;
  #isEnding = false;
  #hasFinished = false;
  /** A writer was asked to wait. */
  #owesDrain = false;
  #bytesRead = 0;
  #isUntouched = true;
  #failure: string | undefined;
  #onOver: (() => void)[] = [];

  /** @param stream not started yet, this one's from now on; or what a leg had that another process has left */
  constructor(stream: TunnelStream | LegState, options: LastingLegOptions) {
    this.#options = options;
    if (!('early' in stream)) {
      this.#stream = stream;
      return;
    }
    this.#isHalted = true;
    if (stream.early.length > 0) this.#early.push(stream.early);
    if (stream.pending.length > 0) this.#pending.push(stream.pending);
    this.#owesDrain = stream.pending.length > 0;
    this.#hasEnded = stream.hasEnded;
    this.#isEnding = stream.isEnding;
  }

  /** The stream that it has now. */
  get stream(): TunnelStream | undefined {
    return this.#stream;
  }

  /** Nothing of what came in has been handed out. */
  get isUntouched(): boolean {
    return this.#isUntouched;
  }

  /** Broken, or given up by its owner. */
  get isOver(): boolean {
    return this.#failure !== undefined;
  }

  /** For a session, which has it handed over when one of its ends goes away. @param id of the connection */
  asHeldTunnel(id: string, stream: TunnelStream): HeldTunnel {
    return {
      id,
      stream,
      halt: (halted) => {
        this.#isHalted = true;
        this.#listen(stream);
        stream.resume();
        halted();
      },
      proceed: () => this.#proceed(),
      settle: (settled) => {
        this.#stream = undefined;
        this.#options.onAway(settled);
      },
      abort: (reason) => {
        stream.abort();
        this.lose(reason);
      },
    };
  }

  /** Hands out nothing more that comes in, as this process is about to go away: it is for the next one. */
  freeze(): void {
    this.#isFrozen = true;
  }

  /** Hands out what comes in, and has come meanwhile: it does not go away after all. */
  thaw(): void {
    if (!this.#isFrozen) return;
    this.#isFrozen = false;
    if (!this.#isPaused) this.resume();
  }

  /** Goes on with another stream, which has not been started. */
  attach(stream: TunnelStream): void {
    if (this.#failure !== undefined) {
      stream.abort();
      return;
    }
    this.#stream = stream;
    this.#isHalted = false;
    this.#listen(stream);
    this.#flush();
  }

  /** It will not come back. */
  lose(reason: string): void {
    if (this.#failure !== undefined) return;
    this.#over(reason);
    const events = this.#events;
    this.#events = undefined;
    events?.onAbort(reason);
  }

  /** Calls back when it is broken or given up; at once, if it is. */
  whenOver(callback: () => void): void {
    if (this.#failure !== undefined) callback();
    else this.#onOver.push(callback);
  }

  /** Takes out what it has in hand, for another process: it is over here, and nobody is told. */
  takeState(): LegState {
    this.#events = undefined;
    const [hasEnded, isEnding] = [this.#hasEnded, this.#isEnding];
    const state = { early: drain(this.#early), pending: drain(this.#pending), hasEnded, isEnding };
    this.#over('another process has it');
    return state;
  }

  start(events: LegEvents): void {
    this.#events = events;
    if (this.#failure !== undefined) {
      events.onAbort(this.#failure);
      return;
    }
    if (this.#stream !== undefined) this.#listen(this.#stream);
    this.resume();
  }

  write(bytes: Buffer): boolean {
    if (this.#stream === undefined || this.#isHalted) {
      this.#pending.push(bytes);
      if (this.#pending.length <= ROOM_WITHOUT_STREAM) return true;
    } else if (this.#stream.write(bytes)) return true;
    this.#owesDrain = true;
    return false;
  }

  end(): void {
    this.#isEnding = true;
    if (!this.#isHalted) this.#stream?.end();
  }

  abort(code?: Parameters<TunnelLeg['abort']>[0]): void {
    this.#events = undefined;
    this.#over('given up');
    this.#stream?.abort(code);
  }

  pause(): void {
    this.#isPaused = true;
    if (!this.#isHalted) this.#stream?.pause();
  }

  resume(): void {
    this.#isPaused = false;
    while (!this.#holdsBack && this.#early.length > 0) this.#early.shift((piece) => this.#handOut(piece));
    this.#tellEnd();
    if (!this.#isPaused) this.#stream?.resume();
  }

  get #holdsBack(): boolean {
    return this.#isPaused || this.#isFrozen || this.#events === undefined;
  }

  bytesRead(): number {
    return this.#bytesRead;
  }

  held(): number {
    return (this.#stream?.held() ?? 0) + this.#early.memory + this.#pending.memory;
  }

  #listen(stream: TunnelStream): void {
    if (this.#listened === stream) return;
    this.#listened = stream;
    const isCurrent = (): boolean => this.#stream === stream;
    stream.start({
      onData: (bytes) => {
        if (isCurrent()) this.#receive(bytes, stream);
      },
      onEnd: () => {
        if (!isCurrent()) return;
        this.#hasEnded = true;
        this.#tellEnd();
      },
      onDrain: () => {
        if (isCurrent() && !this.#isHalted) this.#tellRoom();
      },
      onFinish: () => {
        if (isCurrent()) this.#tellFinish();
      },
      onAbort: (reason) => {
        if (isCurrent()) this.lose(reason);
      },
    });
    if (this.#isPaused && !this.#isHalted) stream.pause();
  }

  #receive(bytes: Buffer, stream: TunnelStream): void {
    this.#bytesRead += bytes.length;
    if (!this.#holdsBack && this.#early.length === 0) {
      this.#handOut(bytes);
      return;
    }
    this.#early.push(bytes);
    if (this.#early.length > MOST_AFTER_HALT) stream.pause();
  }

  #handOut(bytes: Buffer): void {
    this.#isUntouched = false;
    this.#events?.onData(bytes);
  }

  #tellEnd(): void {
    if (!this.#hasEnded || this.#isEndTold || this.#holdsBack || this.#early.length > 0) return;
    this.#isEndTold = true;
    this.#events?.onEnd();
    this.#endWithBoth();
  }

  #tellFinish(): void {
    if (this.#hasFinished) return;
    this.#hasFinished = true;
    this.#events?.onFinish();
    this.#endWithBoth();
  }

  #endWithBoth(): void {
    if (this.#isEndTold && this.#hasFinished) this.#over('ended');
  }

  #proceed(): void {
    this.#isHalted = false;
    this.#isFrozen = false;
    this.#flush();
    if (this.#isPaused) this.#stream?.pause();
    else this.resume();
    this.#options.onStays?.();
  }

  /** Sends what has waited, in order. */
  #flush(): void {
    const stream = this.#stream;
    if (stream === undefined) return;
    let hasRoom = true;
    while (this.#pending.length > 0)
      this.#pending.shift((piece) => {
        hasRoom = stream.write(piece);
      });
    if (this.#isEnding) stream.end();
    // Also what was written before it was halted: that there is room again was not passed on.
    else if (hasRoom) this.#tellRoom();
  }

  #tellRoom(): void {
    if (!this.#owesDrain) return;
    this.#owesDrain = false;
    this.#events?.onDrain();
  }

  #over(reason: string): void {
    this.#failure ??= reason;
    this.#early.clear();
    this.#pending.clear();
    for (const callback of this.#onOver.splice(0)) callback();
  }
}

function drain(queue: ByteQueue): Buffer {
  const bytes = Buffer.alloc(queue.length);
  queue.take(bytes, 0, bytes.length);
  return bytes;
}
