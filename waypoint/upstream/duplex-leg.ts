import type { Duplex } from 'node:stream';
import type { LegEvents } from '#ztunnel/hbone/leg.ts';
import { heldInStream } from '../memory/costs.ts';
import type { TunnelLeg } from '../tunnel-duplex.ts';

/** A stream that is no TCP socket as one end of a splice: TLS inside a tunnel. It belongs to the leg. */
export class DuplexLeg implements TunnelLeg {
  readonly #stream: Duplex;
  #events: LegEvents | undefined;
  #hasEnded = false;
  #hasFinished = false;
  #bytesRead = 0;
  /** It broke before `start`. */
  #failure: string | undefined;

  constructor(stream: Duplex) {
    this.#stream = stream;
    stream.on('error', (error) => this.#lose(error.message));
    stream.on('close', () => this.#lose('closed'));
  }

  start(events: LegEvents): void {
    this.#events = events;
    if (this.#failure !== undefined) {
      this.#lose(this.#failure);
      return;
    }
    const stream = this.#stream;
    const onEnd = (): void => {
      this.#hasEnded = true;
      this.#events?.onEnd();
    };
    // A stream without a byte in it says that it has ended once, whether somebody reads it or not.
    if (stream.readableEnded) process.nextTick(onEnd);
    else stream.on('end', onEnd);
    stream.on('finish', () => {
      this.#hasFinished = true;
      this.#events?.onFinish();
    });
    stream.on('drain', () => this.#events?.onDrain());
    stream.on('data', (bytes: Buffer) => {
      this.#bytesRead += bytes.length;
      this.#events?.onData(bytes);
    });
  }

  write(bytes: Buffer): boolean {
    if (!this.#stream.writable) return true;
    // The caller's memory may be used again.
    return this.#stream.write(Buffer.from(bytes));
  }

  end(): void {
    if (this.#stream.writable) this.#stream.end();
  }

  abort(): void {
    this.#events = undefined;
    this.#stream.destroy();
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  bytesRead(): number {
    return this.#bytesRead;
  }

  held(): number {
    return heldInStream(this.#stream);
  }

  #lose(reason: string): void {
    const events = this.#events;
    this.#events = undefined;
    if (this.#hasEnded && this.#hasFinished) return;
    this.#failure ??= reason;
    events?.onAbort(reason);
  }
}
