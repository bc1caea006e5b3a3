import type { ByteTunnel } from '../exchange.ts';
import type { TunnelDuplex, TunnelLeg } from '../tunnel-duplex.ts';
import { LegTunnel } from '../upstream/leg-tunnel.ts';
import type { TunnelCounts } from './socket-tunnel.ts';

/**
 * The bytes of an upgraded connection without the stream that it was: they are copied from tunnel to tunnel, and can go to another
 * process. The stream is destroyed when they are over.
 * @param first what was read of them already
 * @returns undefined where that cannot be, as something is still on its way through the stream
 */
export function releasedTunnel(
  socket: TunnelDuplex,
  first: Buffer | undefined,
  counts: Omit<TunnelCounts, 'reset' | 'held'>,
): ByteTunnel | undefined {
  const waiting: Buffer[] = first === undefined || first.length === 0 ? [] : [first];
  let tunnel: LegTunnel | undefined;
  let hasEnded = false;
  let hasFinished = false;
  let isOver = false;
  const over = (isComplete: boolean): void => {
    if (isOver) return;
    isOver = true;
    counts.onClosed(isComplete);
    socket.destroy();
  };
  const leg: TunnelLeg | undefined = socket.release({
    onData: (bytes) => {
      if (tunnel === undefined) waiting.push(Buffer.from(bytes));
      else tunnel.onData(bytes);
    },
    onEnd: () => {
      hasEnded = true;
      tunnel?.onEnd();
      if (hasFinished) over(true);
    },
    onDrain: () => tunnel?.onDrain(),
    onFinish: () => {
      hasFinished = true;
      if (hasEnded) over(true);
    },
    onAbort: (reason) => {
      tunnel?.onAbort(reason);
      over(false);
    },
  });
  if (leg === undefined) return undefined;
  const made = new LegTunnel(leg, Buffer.concat(waiting));
  tunnel = made;
  return {
    start: (events) =>
      made.start({
        ...events,
        onData: (chunk) => {
          counts.onReceived(chunk.length);
          events.onData(chunk);
        },
      }),
    write: (chunk) => {
      counts.onSent(chunk.length);
      return made.write(chunk);
    },
    end: () => made.end(),
    abort: () => {
      made.abort();
      over(false);
    },
    pause: () => made.pause(),
    resume: () => made.resume(),
    held: () => made.held(),
  };
}
