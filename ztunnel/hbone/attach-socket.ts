import { Socket, type SocketConstructorOpts } from 'node:net';
import type { DuplexOptions } from 'node:stream';
import type { DetachableLeg, DetachedSocket } from './detached-socket.ts';
import type { LegEvents } from './leg.ts';
import { SocketLeg } from './socket-leg.ts';

/** Those that count the sockets of a pod. */
export interface SocketOwner {
  /** Has a socket counted that is there already, however many there are. */
  readonly regain: (socket: Socket) => void;
}

/**
 * A leg of a socket that another leg was detached from; its descriptor belongs to the leg. What had ended does so again as soon as
 * it is started: the kernel says a FIN as often as somebody reads.
 * @param owner whose socket it is, where that matters
 */
export function attachSocket(
  { fd, hasFinished, unsent }: DetachedSocket,
  owner?: SocketOwner,
): DetachableLeg {
  if (fd === undefined) return ENDED;
  const options: SocketConstructorOpts & DuplexOptions = {
    fd,
    allowHalfOpen: true,
    readable: true,
    writable: !hasFinished,
  };
  const socket = new Socket(options);
  owner?.regain(socket);
  const leg = new SocketLeg(socket, hasFinished);
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
