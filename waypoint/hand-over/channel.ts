import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Logger } from 'pino';
import { askUpgrade } from '#ztunnel/hand-over/ask-upgrade.ts';
import { LineSocket } from '#ztunnel/hand-over/line-socket.ts';
import type { HttpUpgrade } from '#ztunnel/http-listener.ts';
import { type CarriedTunnel, formatCarriedTunnel, parseCarriedTunnel } from './carried-tunnel.ts';
import type { Successor } from './hand-over.ts';

const PATH = '/hand-over/tunnels';
const PROTOCOL = 'tulle-waypoint-hand-over-1';
const ANSWER_MS = 3_000;
/** How long a successor may take to read what was sent to it. */
const FINISH_MS = 5_000;

/** Where a successor waits for tunnels. @param accept gets the successor */
export function tunnelsUpgrade(accept: (successor: Successor) => void): HttpUpgrade {
  return { path: PATH, protocol: PROTOCOL, accept: (socket) => accept(openSuccessor(socket)) };
}

function openSuccessor(socket: Socket): Successor {
  let isThere = true;
  const closed = Promise.withResolvers<void>();
  const lines = new LineSocket(socket, {
    onMessage: () => undefined,
    onClose: () => {
      isThere = false;
      closed.resolve();
    },
  });
  return {
    isThere: () => isThere,
    finish: async () => {
      lines.end();
      await Promise.race([closed.promise, delay(FINISH_MS, undefined, { ref: false })]);
    },
    send: (tunnel) => lines.send(formatCarriedTunnel(tunnel)),
  };
}

/**
 * Has the waypoint that this one replaces hand its tunnels over, when its time comes. Where it does not, they end with it; why is
 * logged.
 * @param socketPath the other one's admin socket
 * @param onTunnel gets each; may throw what it cannot take
 * @returns ends that
 */
export async function awaitTunnels(
  socketPath: string,
  onTunnel: (tunnel: CarriedTunnel) => void,
  logger: Logger,
): Promise<Disposable | undefined> {
  try {
    const socket = await askUpgrade({ socketPath, path: PATH, protocol: PROTOCOL, answerMs: ANSWER_MS });
    return new LineSocket(socket, {
      onMessage: (message) => onTunnel(parseCarriedTunnel(message)),
      onClose: (error) => {
        if (error !== undefined)
          logger.warn({ error: error.message }, 'the predecessor broke off its hand-over');
      },
    });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    logger.warn({ path: socketPath, reason }, 'the predecessor hands no tunnels over, they end with it');
    return undefined;
  }
}
