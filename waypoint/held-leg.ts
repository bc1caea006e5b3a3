import type { LegEvents } from '#ztunnel/hbone/leg.ts';
import { LegBefore } from './leg-before.ts';
import type { TunnelLeg } from './tunnel-duplex.ts';

/**
 * One end of a splice while the other is being made: nothing is read of it (beyond a piece that has come already), and it is known
 * when it breaks.
 */
export class HeldLeg extends LegBefore {
  #owner: LegEvents | undefined;
  #early: Buffer[] = [];
  #hasEnded = false;
  #failure: string | undefined;

  /**
   * @param leg not started yet; this one's from now on
   * @param onGone it broke before it was started
   */
  constructor(leg: TunnelLeg, onGone: () => void) {
    super(leg);
    leg.start({
      onData: (bytes) => {
        if (this.#owner !== undefined) {
          this.#owner.onData(bytes);
          return;
        }
        this.#early.push(Buffer.from(bytes));
        leg.pause();
      },
      onEnd: () => {
        this.#hasEnded = true;
        this.#owner?.onEnd();
      },
      onDrain: () => this.#owner?.onDrain(),
      onFinish: () => this.#owner?.onFinish(),
      onAbort: (reason) => {
        this.#failure = reason;
        if (this.#owner === undefined) onGone();
        else this.#owner.onAbort(reason);
      },
    });
    leg.pause();
  }

  start(events: LegEvents): void {
    this.#owner = events;
    if (this.#failure !== undefined) {
      events.onAbort(this.#failure);
      return;
    }
    this.isPaused = false;
    for (const piece of this.#early.splice(0)) events.onData(piece);
    if (this.#hasEnded) events.onEnd();
    else if (!this.isPaused) this.leg.resume();
  }
}
