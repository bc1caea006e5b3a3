import { closeDescriptor } from './capture/in-pod-sockets.ts';
import { hasCode } from './capture/native.ts';
import type { CarriedRecord } from './connection-record.ts';
import type { Carriage, Connections, LiveConnection } from './connections.ts';
import { duplicate } from './hand-over/descriptors.ts';
import type { HandOverPort } from './hand-over/port.ts';
import { attachSocket } from './hbone/attach-socket.ts';
import { type DetachableLeg, type DetachedSocket, isDetachable } from './hbone/detached-socket.ts';
import { newConnectionId } from './hbone/headers.ts';

/** Connections that are between two processes at a time; others are carried here meanwhile. */
const MOST_AT_ONCE = 32;

type Detached =
  | {
      readonly kind: 'detached';
      readonly record: CarriedRecord;
      readonly sockets: readonly DetachedSocket[];
    }
  | { readonly kind: 'stays'; readonly why: 'closing' | 'kernel_splice' | 'no_descriptors' };

/**
 * Offers a worker's connections of two sockets to the successor of this process: those that are there when it begins, and each that
 * comes about later. One that is not taken goes on here.
 */
export class Retirement {
  readonly #port: HandOverPort;
  readonly #waiting: LiveConnection[] = [];
  /** Once is enough: who has not been taken stays. */
  readonly #seen = new WeakSet<LiveConnection>();
  #offered = 0;

  /** Begins at once. */
  constructor(connections: Connections, port: HandOverPort) {
    this.#port = port;
    connections.onCarried((connection) => this.#add(connection));
  }

  #add(connection: LiveConnection): void {
    if (connection.opening.carriage === undefined || this.#seen.has(connection)) return;
    this.#seen.add(connection);
    this.#waiting.push(connection);
    this.#next();
  }

  #next(): void {
    while (this.#offered < MOST_AT_ONCE) {
      const connection = this.#waiting.shift();
      if (connection === undefined) return;
      const { carriage } = connection.opening;
      if (!connection.isOver && carriage !== undefined) this.#giveUp(connection, carriage);
    }
  }

  #giveUp(connection: LiveConnection, carriage: Carriage): void {
    const detached = detachEnds(connection);
    if (detached.kind === 'stays') {
      this.#port.count(carriage.kind, `drained_${detached.why}`);
      return;
    }
    const { record, sockets } = detached;
    this.#offered += 1;
    void this.#port.offer({ ...carriage, id: newConnectionId(), record, sockets }).then((settled) => {
      this.#offered -= 1;
      const [downstream, upstream] = sockets;
      if (settled === 'taken') connection.leave();
      else if (downstream !== undefined && upstream !== undefined)
        connection.carry(attachSocket(downstream), attachSocket(upstream));
      this.#next();
    });
  }
}

function detachEnds(connection: LiveConnection): Detached {
  const [downstream, upstream] = connection.ends ?? [];
  if (downstream === undefined || upstream === undefined) return { kind: 'stays', why: 'closing' };
  if (!isDetachable(downstream) || !isDetachable(upstream)) return { kind: 'stays', why: 'kernel_splice' };
  const descriptors = duplicates([downstream, upstream]);
  if (!Array.isArray(descriptors)) return { kind: 'stays', why: descriptors };
  downstream.stop();
  upstream.stop();
  const record = connection.suspend();
  if (record === undefined) throw new TypeError('a connection with ends was over');
  const sockets = [downstream.detach(descriptors[0]), upstream.detach(descriptors[1])];
  return { kind: 'detached', record, sockets };
}

/** Descriptors of both, undefined for one that has none any more; or why there are none. */
function duplicates(legs: readonly DetachableLeg[]): (number | undefined)[] | 'closing' | 'no_descriptors' {
  const taken: (number | undefined)[] = [];
  const giveBack = (): void => {
    for (const fd of taken) if (fd !== undefined) closeDescriptor(fd);
  };
  for (const { descriptor } of legs) {
    if (descriptor === undefined) {
      giveBack();
      return 'closing';
    }
    try {
      taken.push(descriptor === 'closed' ? undefined : duplicate(descriptor));
    } catch (error) {
      giveBack();
      if (hasCode(error, 'EMFILE') || hasCode(error, 'ENFILE')) return 'no_descriptors';
      throw error;
    }
  }
  return taken;
}
