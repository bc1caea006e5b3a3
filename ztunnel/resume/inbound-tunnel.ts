import type { LiveConnection } from '../connections.ts';
import type { DataPath, ServedPod } from '../data-path.ts';
import type { CarriedConnection } from '../hand-over/carried.ts';
import { attachSocket } from '../hbone/attach-socket.ts';
import type { Connection } from '../hbone/connection.ts';
import type { TunnelStream } from '../hbone/stream.ts';
import { holdTunnel, type SettledEnd } from './hold-tunnel.ts';

/** The called end of a tunnel. */
export interface InboundEnd {
  readonly path: DataPath;
  readonly pod: ServedPod;
  readonly live: LiveConnection;
  /** ID of the connection. */
  readonly id: string;
  readonly session: Connection;
  readonly stream: TunnelStream;
  /** Who alone may take it up, and for what. */
  readonly claimant: string;
}

/** Has a tunnel whose bytes are being copied handed over; its client has been told that that can be. */
export function holdInbound(end: InboundEnd): void {
  const { path, live, id, session, stream } = end;
  holdTunnel({
    ...{ path, live, id, session, stream },
    kind: 'inbound-tunnel',
    side: 'downstream',
    onSettled: (settled) => void leave(end, settled),
  });
}

/** One that came from the process before this one, as `isOfRestart` knows it. */
export function ofRestart(connection: CarriedConnection): CarriedConnection {
  return { ...connection, tunnel: { isOfRestart: true } };
}

/** Whether it came through a restart of this node's ztunnel, and not of its caller's alone. */
export function isOfRestart({ tunnel }: CarriedConnection): boolean {
  return (
    typeof tunnel === 'object' && tunnel !== null && 'isOfRestart' in tunnel && tunnel.isOfRestart === true
  );
}

/**
 * To whoever asks for it within 10 s: at the successor of this process, or at any worker of this one, if it is the caller's
 * ztunnel that goes away.
 */
async function leave(
  { path, pod, live, id, claimant }: InboundEnd,
  { record, socket, isRetiring }: SettledEnd,
): Promise<void> {
  const carried = {
    ...{ id, record, claimant },
    kind: 'inbound-tunnel',
    podUid: pod.info.uid,
    sockets: [socket],
  } as const;
  if (!isRetiring) {
    live.leave();
    path.handOver.park(carried);
    return;
  }
  if ((await path.handOver.offer(carried)) === 'taken') {
    live.leave();
    return;
  }
  // Its caller asks the successor, which does not have it.
  attachSocket(socket).abort();
  live.fail({ error: 'the next ztunnel did not take the connection', flags: '-' });
  path.handOver.count('inbound-tunnel', 'reset_not_taken');
}
