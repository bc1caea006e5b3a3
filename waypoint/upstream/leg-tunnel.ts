import type { ByteTunnel } from '../exchange.ts';
import type { TunnelLeg } from '../tunnel-duplex.ts';

type TunnelEvents = Parameters<ByteTunnel['start']>[0];

/**
 * A leg that has become a tunnel for another protocol, after it was started for HTTP. Whoever started it passes its events on.
 * Bytes that it hands out are the receiver's to keep.
 */
export class LegTunnel implements ByteTunnel {
  readonly #leg: TunnelLeg;
  #early: Buffer[];
  #hasEnded = false;
  #failure: string | undefined;
  #events: TunnelEvents | undefined;

  /** @param rest bytes of the new protocol that came with the answer */
  constructor(leg: TunnelLeg, rest: Buffer) {
    this.#leg = leg;
    this.#early = rest.length > 0 ? [rest] : [];
    leg.pause();
  }

  /** What its bytes go through. */
  get leg(): TunnelLeg {
    return this.#leg;
  }

  start(events: TunnelEvents): void {
    this.#events = events;
    for (const piece of this.#early) events.onData(piece);
    this.#early = [];
    if (this.#failure !== undefined) events.onAbort(this.#failure);
    else if (this.#hasEnded) events.onEnd();
    else this.#leg.resume();
  }

  write(chunk: Buffer): boolean {
    return this.#leg.write(chunk);
  }

  end(): void {
    this.#leg.end();
  }

  abort(): void {
    this.#events = undefined;
    this.#leg.abort();
  }

  held(): number {
    return this.#leg.held?.() ?? 0;
  }

  pause(): void {
    this.#leg.pause();
  }

  resume(): void {
    this.#leg.resume();
  }

  /** Of the leg. */
  onData(bytes: Buffer): void {
    const piece = Buffer.from(bytes);
    if (this.#events === undefined) this.#early.push(piece);
    else this.#events.onData(piece);
  }

  onEnd(): void {
    this.#hasEnded = true;
    this.#events?.onEnd();
  }

  onDrain(): void {
    this.#events?.onDrain();
  }

  onAbort(reason: string): void {
    this.#failure = reason;
    this.#events?.onAbort(reason);
  }
}
