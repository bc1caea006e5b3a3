import { Socket, type SocketConstructorOpts } from 'node:net';
import type { DuplexOptions } from 'node:stream';
import type { DetachableLeg, DetachedSocket } from './detached-socket.ts';
import type { LegEvents } from './leg.ts';
import { SocketLeg } from './socket-leg.ts';

/**
 * A leg of a socket that another leg was detached from; its descriptor belongs to the leg. What had ended does so again as soon as
 * it is started: the kernel says a FIN as often as somebody reads.
 */
export function attachSocket({ fd, hasFinished, unsent }: DetachedSocket): DetachableLeg {
  if (fd === undefined) return ENDED;
  const options: SocketConstructorOpts & DuplexOptions = {
    fd,
    allowHalfOpen: true,
    readable: true,
    writable: !hasFinished,
  };
  const leg = new SocketLeg(new Socket(options), hasFinished);
  if (unsent.length > 0) leg.write(Buffer.from(unsent.buffer, unsent.byteOffset, unsent.byteLength));
  return leg;
}

/** An end that is over both ways. */
const ENDED: DetachableLeg = {
  descriptor: 'closed',
  stop: () => undefined,
  detach: () => ({ fd: undefined, hasEnded: true, hasFinished: true, unsent: new Uint8Array() }),
  start: ({ onEnd, onFinish }: LegEvents) => {
    process.nextTick(() => {
      onEnd();
      onFinish();
    });
  },
  write: () => true,
  end: () => undefined,
  abort: () => undefined,
  pause: () => undefined,
  resume: () => undefined,
  bytesRead: () => 0,
};
