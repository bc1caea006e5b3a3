import type { AccessRecord, ResponseFlags } from './access-log.ts';
import type { OpeningRecord, Records } from './records.ts';

/** What is known of a connection while it lives. */
export type ConnectionFacts = Pick<
  AccessRecord,
  | 'direction'
  | 'source'
  | 'waypoint'
  | 'destination'
  | 'hboneAddress'
  | 'service'
  | 'impliedService'
  | 'security'
  | 'connectionId'
  | 'policy'
  | 'reason'
  | 'dryRun'
>;

/** Live connection, as admin shows it. */
export interface ConnectionInfo {
  readonly podUid: string;
  readonly direction: 'inbound' | 'outbound';
  readonly source: string;
  readonly destination: string;
  readonly identity?: string;
  readonly protocol: 'HBONE' | 'TCP' | 'SAME_NODE';
  /** The pod at the other end, where that is served here as well and this stands for both ends. */
  readonly destinationPodUid?: string;
}

/** How it ended, if not well. */
export interface Failure {
  readonly error: string;
  readonly flags: ResponseFlags;
  readonly policy?: string;
  readonly reason?: string;
}

/** Of a connection to an application or a hop that did not come about. */
export function connectFailure(error: unknown): Failure {
  return { error: error instanceof Error ? error.message : String(error), flags: 'CONNECT' };
}

/** Bytes from client to server, and back, since it opened. */
export interface ByteCounts {
  readonly received: number;
  readonly sent: number;
}

const NO_BYTES: ByteCounts = { received: 0, sent: 0 };

/** A record so far, as it goes on in another thread or process. */
export interface CarriedRecord {
  readonly facts: ConnectionFacts;
  readonly info: ConnectionInfo;
  /** Milliseconds since 1970. */
  readonly openedAtMs: number;
  /** All bytes so far, which records have told. */
  readonly told: ByteCounts;
}

/** Writes the records of one connection. */
export class ConnectionRecord implements OpeningRecord {
  #facts: ConnectionFacts;
  readonly #records: Pick<Records, 'add' | 'open'>;
  /** By the clock of this process. */
  readonly #openedAt: number;
  #told = NO_BYTES;
  #isOpeningWritten = false;

  /** The connection opens; or one that is open already goes on here. */
  constructor(facts: ConnectionFacts, records: Pick<Records, 'add' | 'open'>, carried?: CarriedRecord) {
    this.#facts = facts;
    this.#records = records;
    this.#openedAt = performance.now() - Math.max(0, Date.now() - (carried?.openedAtMs ?? Infinity));
    if (carried === undefined) {
      records.open(this);
      return;
    }
    this.#told = carried.told;
    this.#isOpeningWritten = true;
    this.#write('joined', carried.told, undefined);
  }

  /** All that has to be known of it to go on elsewhere. */
  carry(bytes: ByteCounts, info: ConnectionInfo): CarriedRecord {
    this.writeOpening();
    this.progress(bytes);
    const openedAtMs = Date.now() - (performance.now() - this.#openedAt);
    return { facts: this.#facts, info, openedAtMs, told: bytes };
  }

  /** It goes on elsewhere. */
  left(): void {
    this.#write('left', this.#told, undefined);
  }

  writeOpening(): void {
    if (this.#isOpeningWritten) return;
    this.#isOpeningWritten = true;
    this.#write('opened', NO_BYTES, undefined);
  }

  /** Policy has been asked: later records say what it said. */
  decided(decision: Pick<ConnectionFacts, 'policy' | 'reason' | 'dryRun'>): void {
    this.#facts = { ...this.#facts, ...decision };
  }

  /** Bytes have flowed, perhaps. */
  progress(bytes: ByteCounts): void {
    if (bytes.received === this.#told.received && bytes.sent === this.#told.sent) return;
    this.writeOpening();
    this.#write('progress', bytes, undefined);
  }

  /** It is over. */
  closed(bytes: ByteCounts, failure: Failure | undefined): void {
    if (failure?.reason !== undefined) this.#forgetDecision();
    const includesOpening = !this.#isOpeningWritten;
    this.#isOpeningWritten = true;
    this.#write('closed', bytes, failure, includesOpening);
  }

  /** Another decision counts now, which may name no policy. */
  #forgetDecision(): void {
    const { policy: _policy, reason: _reason, ...others } = this.#facts;
    this.#facts = others;
  }

  #write(
    event: AccessRecord['event'],
    bytes: ByteCounts,
    failure: Failure | undefined,
    includesOpening = false,
  ): void {
    this.#records.add({
      event,
      atMs: Date.now(),
      ...this.#facts,
      receivedBytes: bytes.received - this.#told.received,
      sentBytes: bytes.sent - this.#told.sent,
      totalReceivedBytes: bytes.received,
      totalSentBytes: bytes.sent,
      durationMs: performance.now() - this.#openedAt,
      flags: '-',
      ...(includesOpening && { includesOpening }),
      ...failure,
    });
    this.#told = bytes;
  }
}

/** The last records of a connection that ended while it was nobody's. */
export function strandedRecords(carried: CarriedRecord, failure: Failure): readonly AccessRecord[] {
  const all: AccessRecord[] = [];
  const records = { add: (record: AccessRecord) => all.push(record), open: () => undefined };
  new ConnectionRecord(carried.facts, records, carried).closed(carried.told, failure);
  return all;
}

/** The record of a connection that was turned away before it was known what it is. */
export function failedRecord(facts: ConnectionFacts, failure: Failure): AccessRecord {
  return {
    event: 'failed',
    atMs: Date.now(),
    ...facts,
    receivedBytes: 0,
    sentBytes: 0,
    totalReceivedBytes: 0,
    totalSentBytes: 0,
    durationMs: 0,
    ...failure,
  };
}
