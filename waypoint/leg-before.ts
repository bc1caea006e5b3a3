import type { LegEvents } from '#ztunnel/hbone/leg.ts';
import type { TunnelLeg } from './tunnel-duplex.ts';

/** A leg that stands before another one until it has an owner, and passes on what it is asked for. */
export abstract class LegBefore implements TunnelLeg {
  protected readonly leg: TunnelLeg;
  /** Whether the owner wants nothing at the moment. */
  protected isPaused = false;

  protected constructor(leg: TunnelLeg) {
    this.leg = leg;
  }

  abstract start(events: LegEvents): void;

  write(bytes: Buffer): boolean {
    return this.leg.write(bytes);
  }

  end(): void {
    this.leg.end();
  }

  abort(...code: Parameters<TunnelLeg['abort']>): void {
    this.leg.abort(...code);
  }

  pause(): void {
    this.isPaused = true;
    this.leg.pause();
  }

  resume(): void {
    this.isPaused = false;
    this.leg.resume();
  }

  bytesRead(): number {
    return this.leg.bytesRead();
  }

  held(): number {
    return this.leg.held?.() ?? 0;
  }
}
