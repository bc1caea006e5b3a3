import {
  type ByteCounts,
  type CarriedRecord,
  type ConnectionFacts,
  type ConnectionInfo,
  ConnectionRecord,
  type Failure,
} from './connection-record.ts';
import type { CarriedConnection } from './hand-over/carried.ts';
import type { Leg } from './hbone/leg.ts';
import { type Side, type Splice, type SpliceEnd, splice } from './hbone/splice.ts';
import type { Verdict } from './policy/verdict.ts';
import type { Records } from './records.ts';

/** Pods are compared as objects: one that comes back under the same uid is another. */
export type PodToken = object;

/** What opens with a connection. */
export interface Opening {
  readonly pod: PodToken;
  /** The pod at the other end, where that is served here as well. */
  readonly otherPod?: PodToken;
  readonly facts: ConnectionFacts;
  readonly info: ConnectionInfo;
  /** Whether it would be let in now, and to which workload; absent: nobody asks (outbound). */
  readonly permission?: Permission;
  /** Gives up what is under way, when it is cut before bytes flow. */
  readonly giveUp: () => void;
  /** What of a connection of two sockets goes to another process with it; absent: it ends in this one, or as its tunnel does. */
  readonly carriage?: Carriage;
}

/** What a connection of two sockets is taken up by, besides those and its record. */
export type Carriage = Pick<CarriedConnection, 'kind' | 'podUid' | 'otherPodUid' | 'ends'>;

/** What a connection is there by. */
export interface Permission {
  readonly workloadUid: string;
  readonly verdict: () => Verdict;
  /** Why an end is no longer who it was taken for; absent where the session of a tunnel stands for that. */
  readonly lostIdentity?: () => Failure | undefined;
}

/** Whether a pod is at one of its ends. */
export function concerns({ pod, otherPod }: Opening, token: PodToken): boolean {
  return pod === token || otherPod === token;
}

/** A connection from its opening to its end: one record for each, and it can be cut at any time. */
export class LiveConnection {
  readonly opening: Opening;
  readonly #registry: Connections;
  readonly #record: ConnectionRecord;
  #splice: Splice | undefined;
  #ends: readonly [downstream: Leg, upstream: Leg] | undefined;
  /** Bytes that others than the splice have carried. */
  #earlier: ByteCounts;
  /** Gives up what is under way while no bytes flow; undefined: that is somebody else's to do. */
  #giveUp: (() => void) | undefined;
  /** It goes through a tunnel whose other end can hand it over, too. */
  isHeld = false;
  /** Why it is being cut. */
  #cause: Failure | undefined;
  #isOver = false;
  /** Its neighbours among those that are open. */
  previous: LiveConnection | undefined;
  next: LiveConnection | undefined;

  constructor(registry: Connections, opening: Opening, records: Records, carried?: CarriedRecord) {
    this.#registry = registry;
    this.opening = opening;
    this.#giveUp = opening.giveUp;
    this.#earlier = carried?.told ?? { received: 0, sent: 0 };
    this.#record = new ConnectionRecord(opening.facts, records, carried);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Policy has been asked whether it is let in. */
  decided({ reason, policy, dryRun }: Verdict): void {
    const rehearsed = dryRun.map((each) => `${each.policy} would ${each.would}`).join(', ');
    this.#record.decided({
      reason,
      ...(policy !== undefined && { policy }),
      ...(rehearsed !== '' && { dryRun: rehearsed }),
    });
  }

  /** Both ends are there, or there again: copies bytes until they end. */
  carry(downstream: Leg, upstream: Leg): void {
    if (this.#isOver || this.#cause !== undefined) {
      downstream.abort();
      upstream.abort();
      this.#end(this.#cause);
      return;
    }
    this.#ends = [downstream, upstream];
    this.#splice = splice(downstream, upstream, (end) => this.#end(this.#cause ?? failureOf(end)));
    // It may have been over at once.
    if (this.#isOver) this.#splice = undefined;
    else this.#registry.carries(this);
  }

  /** What bytes are copied between now. */
  get ends(): readonly [downstream: Leg, upstream: Leg] | undefined {
    return this.#splice === undefined ? undefined : this.#ends;
  }

  /** Writes nothing more into the tunnel at that end, and takes all that comes from it; until `proceed`. */
  halt(side: Side): void {
    this.#splice?.halt(side);
  }

  proceed(): void {
    this.#splice?.proceed();
  }

  /**
   * Takes it off its ends, which are the caller's from then on: nothing is copied, and whatever happens to it shows when it is
   * carried again, `regained`, or `leaves`. Undefined when it has no ends now.
   */
  suspend(): CarriedRecord | undefined {
    if (this.#splice === undefined || this.#isOver) return undefined;
    this.#earlier = this.#bytes();
    this.#splice.release();
    this.#splice = undefined;
    this.#ends = undefined;
    this.#giveUp = undefined;
    return this.#record.carry(this.#earlier, this.opening.info);
  }

  /** It is about to be carried again by somebody who can give that up; at once, if it was cut meanwhile. */
  regain(giveUp: () => void): void {
    this.#giveUp = giveUp;
    if (this.#cause !== undefined) this.#stop(this.#cause);
  }

  /** It goes on elsewhere, after it was suspended: that is no end. */
  leave(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#record.left();
    this.#registry.remove(this);
  }

  /** It did not come about. */
  fail(failure: Failure): void {
    this.#end(failure);
  }

  /** Resets both ends, whatever has come of it. */
  cut(failure: Failure): void {
    if (this.#isOver) return;
    this.#cause = failure;
    if (this.#splice !== undefined) this.#splice.cut(failure.error);
    else this.#stop(failure);
  }

  /** Ends what carries no bytes now, unless that is somebody else's, who will see. */
  #stop(failure: Failure): void {
    if (this.#giveUp === undefined || this.#isOver) return;
    this.#giveUp();
    this.#end(failure);
  }

  /** Bytes of memory in which its data waits. */
  held(): number {
    return this.ends?.reduce((sum, end) => sum + (end.held?.() ?? 0), 0) ?? 0;
  }

  progress(): void {
    if (this.#splice !== undefined && !this.#isOver) this.#record.progress(this.#bytes());
  }

  #bytes(): ByteCounts {
    const { received, sent } = this.#splice?.bytes() ?? { received: 0, sent: 0 };
    return { received: this.#earlier.received + received, sent: this.#earlier.sent + sent };
  }

  #end(failure: Failure | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#record.closed(this.#bytes(), failure);
    this.#splice = undefined;
    this.#ends = undefined;
    this.#registry.remove(this);
  }
}

function failureOf(end: SpliceEnd): Failure | undefined {
  if (end.kind === 'complete') return undefined;
  const error = end.kind === 'cut' ? end.reason : `${end.side}: ${end.reason}`;
  return { error, flags: '-' };
}

/**
 * All connections of a worker that are open. A list through them, since a `Set` that has grown leaves its former self as garbage
 * that keeps the connections in it alive far beyond their end.
 */
export class Connections {
  readonly #records: Records;
  #first: LiveConnection | undefined;
  #size = 0;
  #onChange: (() => void)[] = [];
  #onCarried: ((connection: LiveConnection) => void) | undefined;

  constructor(records: Records) {
    this.#records = records;
  }

  /** A connection has opened; or (`carried`) one goes on here that others had before. */
  open(opening: Opening, carried?: CarriedRecord): LiveConnection {
    const connection = new LiveConnection(this, opening, this.#records, carried);
    connection.next = this.#first;
    if (this.#first !== undefined) this.#first.previous = connection;
    this.#first = connection;
    this.#size += 1;
    return connection;
  }

  remove(connection: LiveConnection): void {
    const { previous, next } = connection;
    if (previous === undefined) this.#first = next;
    else previous.next = next;
    if (next !== undefined) next.previous = previous;
    connection.previous = undefined;
    connection.next = undefined;
    this.#size -= 1;
    this.notify();
  }

  /** Bytes are copied now, or again. */
  carries(connection: LiveConnection): void {
    this.#onCarried?.(connection);
  }

  /** Calls back for each whose bytes are copied: those that are now, and from then on each at its turn. */
  onCarried(callback: (connection: LiveConnection) => void): void {
    this.#onCarried = callback;
    for (const connection of this.#all()) if (connection.ends !== undefined) callback(connection);
  }

  /** Something that `until` may wait for has changed. */
  notify(): void {
    if (this.#onChange.length === 0) return;
    const waiters = this.#onChange;
    this.#onChange = [];
    for (const waiter of waiters) waiter();
  }

  get size(): number {
    return this.#size;
  }

  list(): readonly ConnectionInfo[] {
    return this.#all().map(({ opening }) => opening.info);
  }

  countOf(pod: PodToken): number {
    let count = 0;
    for (const { opening } of this.#all()) if (concerns(opening, pod)) count++;
    return count;
  }

  /** Resolves when the condition holds; it is looked at whenever a connection has ended, and at `notify`. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#onChange.push(resolve));
  }

  /** Bytes of all, for the metrics. */
  progress(): void {
    for (const connection of this.#all()) connection.progress();
  }

  cut(which: (connection: LiveConnection) => boolean, failure: Failure): void {
    for (const connection of this.#all()) if (which(connection)) connection.cut(failure);
  }

  /**
   * Cuts those that hold most memory, until so much is free.
   * @param least that one has to hold to be cut
   * @returns what each of them held
   */
  cutLargest(
    bytes: number,
    { least, failure }: { readonly least: number; readonly failure: Failure },
  ): readonly { readonly connection: LiveConnection; readonly held: number }[] {
    const holders = this.#all()
      .map((connection) => ({ connection, held: connection.held() }))
      .filter(({ held }) => held >= least)
      .toSorted((one, other) => other.held - one.held);
    const cut: { readonly connection: LiveConnection; readonly held: number }[] = [];
    for (let freed = 0; freed < bytes; ) {
      const holder = holders[cut.length];
      if (holder === undefined) break;
      holder.connection.cut(failure);
      freed += holder.held;
      cut.push(holder);
    }
    return cut;
  }

  /** Those whose bytes go through a tunnel now; a copy. */
  tunnels(): readonly LiveConnection[] {
    return this.#all().filter(({ opening, ends }) => opening.info.protocol === 'HBONE' && ends !== undefined);
  }

  /** Those whose permission can be taken back; a copy. */
  inbound(): readonly LiveConnection[] {
    return this.#all().filter(({ opening }) => opening.permission !== undefined);
  }

  /** A copy: what is done with them may end them. */
  #all(): readonly LiveConnection[] {
    const all: LiveConnection[] = [];
    for (let each = this.#first; each !== undefined; each = each.next) all.push(each);
    return all;
  }
}

/** A denial as the record of a connection tells it; the words are a stock ztunnel's. */
export function denial(verdict: Verdict & { readonly kind: 'deny' }): Failure {
  return {
    error: `connection closed due to policy rejection: ${WHY_DENIED[verdict.reason](verdict.policy ?? '')}`,
    flags: 'DENY',
    reason: verdict.reason,
    ...(verdict.policy === undefined ? {} : { policy: verdict.policy }),
  };
}

const WHY_DENIED: Readonly<Record<(Verdict & { kind: 'deny' })['reason'], (policy: string) => string>> = {
  'denied-by-policy': (policy) => `explicitly denied by: ${policy}`,
  'no-allow-matched': () => 'allow policies exist, but none allowed',
  'missing-policy': (policy) => `policy ${policy} is named and has not come`,
};
