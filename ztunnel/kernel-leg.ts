import { isTcpClosed } from './capture/tcp-socket.ts';
import type { Leg, LegEvents } from './hbone/leg.ts';
import type { SocketLeg } from './hbone/socket-leg.ts';
import type { KernelSplice, SpliceDirection, SpliceEnd } from './kernel-splice.ts';
import { descriptorOf } from './pod-sockets.ts';

/** One end of a connection whose bytes may go past the ztunnel. */
export interface KernelEnd extends SpliceEnd {
  readonly leg: SocketLeg;
}

/** Both ends, to be carried in place of the legs that they are made of. */
export interface KernelPair {
  readonly downstream: Leg;
  readonly upstream: Leg;
}

/**
 * Has the kernel carry bytes between two applications as soon as it can, either way. Nothing may have been read from either
 * end or written into it. Undefined when it cannot; then nothing has changed.
 */
export function spliceInKernel(
  kernel: KernelSplice,
  downstream: KernelEnd,
  upstream: KernelEnd,
): KernelPair | undefined {
  const up = kernel.open(downstream, upstream.socket);
  if (up === undefined) return undefined;
  const down = kernel.open(upstream, downstream.socket);
  if (down === undefined) {
    up.close();
    return undefined;
  }
  upstream.socket.once('close', up.close);
  downstream.socket.once('close', down.close);
  return {
    downstream: new KernelLeg(downstream, upstream.leg, up),
    upstream: new KernelLeg(upstream, downstream.leg, down),
  };
}

/** A socket as one end: it says what of its bytes is in the other's queue, and counts those that it never saw. */
class KernelLeg implements Leg {
  readonly #end: KernelEnd;
  readonly #direction: SpliceDirection;
  #taken = 0;
  #hasWrittenEnd = false;

  constructor(end: KernelEnd, other: SocketLeg, direction: SpliceDirection) {
    this.#end = end;
    this.#direction = direction;
    other.whenFlushed(() => direction.flushed(this.#taken));
  }

  start(events: LegEvents): void {
    this.#end.leg.start({
      ...events,
      onData: (bytes) => {
        this.#taken += bytes.length;
        events.onData(bytes);
      },
      onEnd: () => this.#onEnd(events),
    });
  }

  write(bytes: Buffer): boolean {
    return this.#end.leg.write(bytes);
  }

  end(): void {
    this.#hasWrittenEnd = true;
    this.#end.leg.end();
  }

  abort(): void {
    this.#end.leg.abort();
  }

  pause(): void {
    this.#end.leg.pause();
  }

  resume(): void {
    this.#end.leg.resume();
  }

  bytesRead(): number {
    return this.#end.leg.bytesRead() + this.#direction.redirected();
  }

  /**
   * A reset may look like an end: the other application was just sending, and it was told instead of us. But nothing else
   * than a reset closes a socket whose own end has not been written.
   */
  #onEnd(events: LegEvents): void {
    const fd = descriptorOf(this.#end.socket);
    if (this.#hasWrittenEnd || fd === undefined || !isTcpClosed(fd)) {
      events.onEnd();
      return;
    }
    events.onAbort('reset');
    this.#end.leg.abort();
  }
}
