import type { LegEvents } from '#ztunnel/hbone/leg.ts';
import { LegBefore } from '../leg-before.ts';
import type { TunnelLeg } from '../tunnel-duplex.ts';

/** How a look at the first bytes ends. */
export interface Peek<Result> {
  /** What the bytes so far say; undefined: more are needed. `isLast`: there will be no more. */
  readonly decide: (bytes: Buffer, isLast: boolean) => Result | undefined;
  /** Called once, unless the tunnel breaks before. The leg is whole again: whoever starts it reads from the first byte. */
  readonly onDecided: (result: Result, leg: PeekedLeg) => void;
  readonly onAbort: (reason: string) => void;
  /** How long to wait for enough bytes, and what holds when they do not come; absent: for ever. */
  readonly timeout?: { readonly ms: number; readonly result: Result };
}

const NOTHING: Buffer = Buffer.alloc(0);

/** A tunnel whose first bytes are looked at before it is known who is to have it. */
export class PeekedLeg extends LegBefore {
  #owner: LegEvents | undefined;
  /** Bytes that came before there was an owner. */
  #first: Buffer = NOTHING;
  #hasEnded = false;
  #isDecided = false;
  /** Why it broke, or that it was given up. */
  #failure: string | undefined;
  /** Told of all that comes in, for those who measure time. */
  onBytes: ((bytes: number) => void) | undefined;

  /** Starts to read. @param leg not started yet; this one's from now on */
  static open<Result>(leg: TunnelLeg, peek: Peek<Result>): PeekedLeg {
    const peeked = new PeekedLeg(leg);
    peeked.#look(peek);
    return peeked;
  }

  start(events: LegEvents): void {
    this.#owner = events;
    this.isPaused = false;
    const first = this.#first;
    this.#first = NOTHING;
    if (this.#failure !== undefined) {
      events.onAbort(this.#failure);
      return;
    }
    if (first.length > 0) events.onData(first);
    if (this.#hasEnded) events.onEnd();
    else if (!this.isPaused) this.leg.resume();
  }

  override abort(...code: Parameters<TunnelLeg['abort']>): void {
    this.#failure ??= 'given up';
    super.abort(...code);
  }

  #look<Result>(peek: Peek<Result>): void {
    const { timeout } = peek;
    let timer: NodeJS.Timeout | undefined;
    const decided = (result: Result): void => {
      clearTimeout(timer);
      if (this.#failure !== undefined) return;
      this.#isDecided = true;
      this.leg.pause();
      peek.onDecided(result, this);
    };
    const look = (): void => {
      if (this.#isDecided || this.#failure !== undefined) return;
      const result = peek.decide(this.#first, this.#hasEnded);
      if (result !== undefined) decided(result);
    };
    if (timeout !== undefined) timer = setTimeout(() => decided(timeout.result), timeout.ms).unref();
    this.leg.start({
      onData: (bytes) => {
        this.onBytes?.(bytes.length);
        if (this.#owner !== undefined) {
          this.#owner.onData(bytes);
          return;
        }
        this.#first = Buffer.concat([this.#first, bytes]);
        look();
      },
      onEnd: () => {
        this.#hasEnded = true;
        if (this.#owner === undefined) look();
        else this.#owner.onEnd();
      },
      onDrain: () => this.#owner?.onDrain(),
      onFinish: () => this.#owner?.onFinish(),
      onAbort: (reason) => {
        clearTimeout(timer);
        this.#failure ??= reason;
        if (this.#owner !== undefined) this.#owner.onAbort(reason);
        else if (!this.#isDecided) peek.onAbort(reason);
      },
    });
  }
}
