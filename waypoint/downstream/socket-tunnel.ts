import type { Duplex } from 'node:stream';
import type { ByteTunnel } from '../exchange.ts';

/** Who counts what goes through. */
export interface TunnelCounts {
  readonly onReceived: (bytes: number) => void;
  readonly onSent: (bytes: number) => void;
  /** The stream is gone; `complete`: both directions had ended. Called once. */
  readonly onClosed: (complete: boolean) => void;
  /** How it is reset; absent: by destroying it. */
  readonly reset?: () => void;
  /** Bytes of memory in which its data waits, where that is not counted elsewhere. */
  readonly held?: () => number;
}

/**
 * A stream as the bytes of an upgraded connection; it is the tunnel's from now on.
 * @param first what was read of it already
 */
export function socketTunnel(stream: Duplex, first: Buffer | undefined, counts: TunnelCounts): ByteTunnel {
  let onAbort: ((reason: string) => void) | undefined;
  let hasEnded = false;
  let reason = 'closed';
  stream.on('error', (error) => {
    reason = error.message;
  });
  stream.on('close', () => {
    const complete = hasEnded && stream.writableFinished;
    if (!complete) onAbort?.(reason);
    counts.onClosed(complete);
  });
  if (first !== undefined && first.length > 0) stream.unshift(first);
  return {
    start: (events) => {
      onAbort = events.onAbort;
      if (stream.destroyed) {
        events.onAbort(reason);
        return;
      }
      stream.on('drain', events.onDrain);
      const onEnd = (): void => {
        hasEnded = true;
        events.onEnd();
      };
      // A stream without a byte in it says that it has ended once, whether somebody reads it or not.
      if (stream.readableEnded) process.nextTick(onEnd);
      else stream.on('end', onEnd);
      stream.on('data', (chunk: Buffer) => {
        counts.onReceived(chunk.length);
        events.onData(chunk);
      });
      stream.resume();
    },
    write: (chunk) => {
      if (stream.destroyed || stream.writableEnded) return true;
      counts.onSent(chunk.length);
      return stream.write(chunk);
    },
    end: () => {
      if (!stream.destroyed) stream.end();
    },
    abort: () => {
      onAbort = undefined;
      if (counts.reset === undefined) stream.destroy();
      else counts.reset();
    },
    held: counts.held ?? (() => 0),
    pause: () => stream.pause(),
    resume: () => stream.resume(),
  };
}
