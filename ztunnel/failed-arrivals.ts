import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { HostPort } from '#api/address.ts';
import type { AccessRecord, ResponseFlags } from './access-log.ts';
import { failedRecord } from './connection-record.ts';
import { localOf, remoteOf, unknownPeer } from './data-path.ts';

/** Records a second that one pod's failures may be; what comes beyond is one record for all. */
const MOST_A_SECOND = 100;

interface Ends {
  readonly remote: HostPort;
  readonly local: HostPort;
}

/** Records of connections that came in and never became one: strangers, half a handshake, no TLS at all. */
export class FailedArrivals {
  readonly #record: (record: AccessRecord) => void;
  #second = 0;
  #inSecond = 0;
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
  note(socket: Socket | TLSSocket, error: string, flags: ResponseFlags): void {
    const known = endsOf(socket) ?? this.#ends.get(socket);
    const left = this.#left();
    if (known === undefined || left < 0) return;
    const more = left === 0 ? '; more failures of this second are not written' : '';
    const ends = { source: unknownPeer(known.remote), destination: unknownPeer(known.local) };
    this.#record(
      failedRecord(
        { direction: 'inbound', ...ends, security: 'unknown' },
        { error: `${error}${more}`, flags },
      ),
    );
  }

  #left(): number {
    const second = Math.floor(performance.now() / 1000);
    if (second !== this.#second) this.#inSecond = 0;
    this.#second = second;
    this.#inSecond += 1;
    return MOST_A_SECOND - this.#inSecond;
  }
}

function endsOf(socket: Socket): Ends | undefined {
  const remote = remoteOf(socket);
  const local = localOf(socket);
  return remote === undefined || local === undefined ? undefined : { remote, local };
}
