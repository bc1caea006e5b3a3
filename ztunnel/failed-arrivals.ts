import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { HostPort } from '#api/address.ts';
import type { AccessRecord, ResponseFlags } from './access-log.ts';
import { failedRecord } from './connection-record.ts';
import { localOf, remoteOf, unknownPeer } from './data-path.ts';
import { FailureLimit } from './failure-limit.ts';

interface Ends {
  readonly remote: HostPort;
  readonly local: HostPort;
}

/** Records of connections that came in and never became one: strangers, half a handshake, no TLS at all. */
export class FailedArrivals {
  readonly #record: (record: AccessRecord) => void;
  readonly #limit = new FailureLimit();
  readonly #ends = new WeakMap<Socket, Ends>();

  constructor(record: (record: AccessRecord) => void) {
    this.#record = record;
  }

  /** One came in: a socket no longer knows its addresses when its handshake has failed. */
  arrived(socket: Socket): void {
    const ends = endsOf(socket);
    if (ends !== undefined) this.#ends.set(socket, ends);
  }

  /** Writes why one failed, unless too many do. */
  note(socket: Socket | TLSSocket, why: string, flags: ResponseFlags): void {
    const known = endsOf(socket) ?? this.#ends.get(socket);
    const error = this.#limit.text(why);
    if (known === undefined || error === undefined) return;
    const ends = { source: unknownPeer(known.remote), destination: unknownPeer(known.local) };
    this.#record(failedRecord({ direction: 'inbound', ...ends, security: 'unknown' }, { error, flags }));
  }
}

function endsOf(socket: Socket): Ends | undefined {
  const remote = remoteOf(socket);
  const local = localOf(socket);
  return remote === undefined || local === undefined ? undefined : { remote, local };
}
