import { NativeError } from '../capture/native.ts';
import type { CarriedRecord } from '../connection-record.ts';
import type { LiveConnection } from '../connections.ts';
import type { DataPath } from '../data-path.ts';
import type { CarriedKind } from '../hand-over/carried.ts';
import { duplicate } from '../hand-over/descriptors.ts';
import type { Connection } from '../hbone/connection.ts';
import { type DetachableLeg, type DetachedSocket, isDetachable } from '../hbone/detached-socket.ts';
import type { Side } from '../hbone/splice.ts';
import type { TunnelStream } from '../hbone/stream.ts';

/** One end of a tunnel that is carried. */
export interface TunnelEnd {
  readonly path: DataPath;
  readonly live: LiveConnection;
  readonly kind: CarriedKind;
  /** ID of the connection, which both ends know. */
  readonly id: string;
  readonly session: Connection;
  readonly stream: TunnelStream;
  /** Which end of the splice the stream is. */
  readonly side: Side;
  /** It has left the stream: the live connection is suspended, and the rest is the callee's. */
  readonly onSettled: (settled: SettledEnd) => void;
}

/** What is left of an end of a tunnel that is handed over. */
export interface SettledEnd {
  readonly record: CarriedRecord;
  /** The application's. */
  readonly socket: DetachedSocket;
  /** This process goes away; else the other end's does. */
  readonly isRetiring: boolean;
}

/** Has an end of a tunnel, whose bytes are being copied, handed over when one of its two processes goes away. */
export function holdTunnel({ path, live, kind, id, session, stream, side, onSettled }: TunnelEnd): void {
  if (live.isOver) return;
  live.isHeld = true;
  const applicationOf = (): DetachableLeg | undefined => {
    const [downstream, upstream] = live.ends ?? [];
    const leg = side === 'upstream' ? downstream : upstream;
    return leg !== undefined && isDetachable(leg) ? leg : undefined;
  };
  session.handOver.hold({
    id,
    stream,
    halt: (halted) => {
      live.halt(side);
      // One that cannot be detached never rests, and goes on here.
      if (applicationOf()?.descriptor !== undefined) halted();
    },
    proceed: (why, isRetiring) => {
      live.proceed();
      if (isRetiring) path.handOver.count(kind, `drained_${why}`);
    },
    settle: ({ isRetiring }) => {
      const application = applicationOf();
      application?.stop();
      const record = live.suspend();
      if (record === undefined) return;
      const socket = application && detach(application);
      if (socket !== undefined) {
        onSettled({ record, socket, isRetiring });
        return;
      }
      application?.abort();
      live.fail({ error: 'the application has gone in a hand-over', flags: '-' });
      path.handOver.count(kind, 'reset_gone');
    },
    abort: (reason) => {
      path.handOver.count(kind, 'reset_broken');
      live.cut({ error: `hand-over failed: ${reason}`, flags: '-' });
    },
  });
}

/**
 * This process goes away, and another one takes its place: has the tunnels of all sessions handed over, also those that come about
 * only now. The others drain.
 */
export function retireTunnels(
  path: DataPath,
  listeners: readonly { readonly retireSessions: () => Promise<void> }[],
): void {
  for (const { isHeld, opening } of path.connections.tunnels()) {
    const kind = opening.info.direction === 'inbound' ? 'inbound-tunnel' : 'outbound-tunnel';
    if (!isHeld) path.handOver.count(kind, 'drained_peer');
  }
  void Promise.all([path.pool.retire(), ...listeners.map((each) => each.retireSessions())]);
}

/** Undefined: it broke, or there is no descriptor left to be had. */
function detach(leg: DetachableLeg): DetachedSocket | undefined {
  const { descriptor } = leg;
  if (descriptor === undefined) return undefined;
  try {
    return leg.detach(descriptor === 'closed' ? undefined : duplicate(descriptor));
  } catch (error) {
    if (error instanceof NativeError) return undefined;
    throw error;
  }
}
