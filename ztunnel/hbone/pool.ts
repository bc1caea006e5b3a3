import { formatHostPort, type HostPort } from '#api/address.ts';
import { formatIdentity, type Identity } from '#certs/identity.ts';
import type { Svid } from '#certs/svid.ts';
import type { Connection } from './connection.ts';
import { HboneError } from './error.ts';
import type { Field } from './hpack-tables.ts';
import type { Answer, TunnelStream } from './stream.ts';

/** Longer than a server may wait for what is to be taken up, and for the policies that it is asked of. */
const RESUME_ANSWER_MS = 20_000;

/**
 * Asks for a tunnel that is to be taken up again, and no longer than a server that means it may take for the answer.
 * @param open passes on each stream on which it asks
 */
export async function askPatiently<T>(
  open: (onStream: (stream: TunnelStream) => void) => Promise<T>,
  patienceMs: number = RESUME_ANSWER_MS,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await open((stream) => {
      clearTimeout(timer);
      timer = setTimeout(() => stream.abort('CANCEL'), patienceMs);
    });
  } finally {
    clearTimeout(timer);
  }
}

/** Which session a tunnel may share: same caller, same peer. */
export interface PoolTarget {
  readonly svid: Svid;
  readonly expected: readonly Identity[];
  /** Who calls, by whatever name: its sessions are its own, because the far end sees its address. */
  readonly caller: string;
  readonly hop: HostPort;
}

export interface PoolOptions<Target extends PoolTarget> {
  /** Opens a session. @throws HboneError */
  readonly connect: (target: Target, onClose: () => void) => Promise<Connection>;
  /** Streams on a session before another is opened, as far as the peer allows as many. */
  readonly maxStreams: number;
  /** A session that has not been used for so long closes, once its streams have ended. */
  readonly idleMs: number;
}

/** An answered CONNECT. */
export interface OpenTunnel {
  readonly connection: Connection;
  readonly stream: TunnelStream;
  readonly fields: readonly Field[];
}

/**
 * How many new sessions a caller waits for, in vain because they are full by its turn, or closed again. Many callers may
 * wait at once, and each session takes a hundred.
 */
const CONNECT_ATTEMPTS = 50;

interface Outcome {
  readonly connection: Connection;
  readonly stream: TunnelStream;
  readonly answer: Answer;
}

interface Session {
  readonly connection: Connection;
  /** On the clock of `performance.now`. */
  readonly openedAt: number;
  /** Until then its caller's certificate is good. */
  readonly usableUntilMs: number;
  usedAtMs: number;
}

interface Group {
  readonly caller: string;
  readonly sessions: Session[];
  /** Its caller is gone. */
  isReleased: boolean;
  connecting: Promise<void> | undefined;
}

/** Sessions to HBONE servers, shared by the tunnels of one caller to one peer. Fact sheet ambient-wire.md, 1.8. */
export class Pool<Target extends PoolTarget> {
  readonly #options: PoolOptions<Target>;
  readonly #groups = new Map<string, Group>();
  readonly #sweeper: NodeJS.Timeout;
  #isClosed = false;
  #isRetiring = false;

  constructor(options: PoolOptions<Target>) {
    this.#options = options;
    this.#sweeper = setInterval(() => this.#sweep(), Math.max(options.idleMs / 10, 100)).unref();
  }

  /**
   * Opens a tunnel: on a session that is there, or a new one, which callers that come while it is being made share. A
   * request that the peer did not take up, on a session that had been used before, is made once more on another.
   * @param onStream gets the stream before it is answered, to abort it when the caller has gone
   * @throws HboneError
   */
  async open(
    target: Target,
    fields: readonly Field[],
    onStream: (stream: TunnelStream) => void,
  ): Promise<OpenTunnel> {
    const started = performance.now();
    const request = (connection: Connection): Promise<Outcome> => ask(connection, fields, onStream);
    const first = await this.#use(target, -1, request);
    if (first.answer.kind === 'answered') return { ...first, fields: first.answer.fields };
    if (!first.answer.isRetryable) throw lost(target, first.answer.reason);
    const second = await this.#use(target, started, request);
    if (second.answer.kind === 'answered') return { ...second, fields: second.answer.fields };
    throw lost(target, second.answer.reason);
  }

  /** Sessions that are open. */
  get size(): number {
    let size = 0;
    for (const { sessions } of this.#groups.values()) size += sessions.length;
    return size;
  }

  /** A caller is gone, and its connections with it: its sessions close when their streams have ended. */
  release(caller: string): void {
    for (const group of this.#groups.values()) {
      if (group.caller !== caller) continue;
      group.isReleased = true;
      for (const { connection } of [...group.sessions]) connection.drain();
    }
  }

  /**
   * This process goes away, and another one takes its place: has the tunnels of all sessions handed over, also of those that are
   * opened from now on. Resolves when it is known of each that is there what becomes of it.
   */
  async retire(): Promise<void> {
    this.#isRetiring = true;
    const sessions = [...this.#groups.values()].flatMap((group) => group.sessions);
    await Promise.all(sessions.map(({ connection }) => connection.handOver.retire()));
  }

  /** Opens no more sessions; those that are there close when their streams have ended. */
  close(): void {
    this.#isClosed = true;
    clearInterval(this.#sweeper);
    for (const { sessions } of this.#groups.values()) {
      for (const { connection } of [...sessions]) connection.drain();
    }
  }

  /**
   * Makes a request on a session that was opened after a point in time. Choosing one and using it is one step, or all who wait
   * for a new session would find it empty.
   */
  async #use(
    target: Target,
    openedAfter: number,
    request: (connection: Connection) => Promise<Outcome>,
  ): Promise<Outcome> {
    const key = keyOf(target);
    for (let attempt = 0; attempt < CONNECT_ATTEMPTS; attempt++) {
      const group = this.#groups.get(key) ?? newGroup(target);
      this.#groups.set(key, group);
      const now = Date.now();
      const session = group.sessions.find((each) => each.openedAt > openedAfter && this.#isUsable(each, now));
      if (session !== undefined) {
        session.usedAtMs = now;
        return await request(session.connection);
      }
      if (this.#isClosed) throw new HboneError('the ztunnel is draining', { code: 'SESSION_LOST' });
      group.connecting ??= this.#connect(key, group, target);
      await group.connecting;
    }
    throw lost(target, 'sessions to it do not last');
  }

  #isUsable({ connection, usableUntilMs }: Session, now: number): boolean {
    const limit = Math.min(this.#options.maxStreams, connection.maxStreams);
    return connection.isOpen && connection.streamCount < limit && now < usableUntilMs;
  }

  async #connect(key: string, group: Group, target: Target): Promise<void> {
    try {
      const connection = await this.#options.connect(target, () => {
        const index = group.sessions.findIndex((each) => each.connection === connection);
        if (index >= 0) group.sessions.splice(index, 1);
        this.#forgetEmpty(key, group);
      });
      group.sessions.push({
        connection,
        openedAt: performance.now(),
        usableUntilMs: target.svid.notAfterMs,
        usedAtMs: Date.now(),
      });
      if (this.#isRetiring) void connection.handOver.retire();
      if (this.#isClosed || group.isReleased) connection.drain();
    } finally {
      group.connecting = undefined;
      this.#forgetEmpty(key, group);
    }
  }

  #forgetEmpty(key: string, group: Group): void {
    const isEmpty = group.sessions.length === 0 && group.connecting === undefined;
    if (isEmpty && this.#groups.get(key) === group) this.#groups.delete(key);
  }

  #sweep(): void {
    const now = Date.now();
    for (const { sessions } of this.#groups.values()) {
      for (const { connection, usedAtMs, usableUntilMs } of [...sessions]) {
        if (now - usedAtMs >= this.#options.idleMs || now >= usableUntilMs) connection.drain();
      }
    }
  }
}

function newGroup({ caller }: PoolTarget): Group {
  return { caller, sessions: [], isReleased: false, connecting: undefined };
}

function ask(
  connection: Connection,
  fields: readonly Field[],
  onStream: (stream: TunnelStream) => void,
): Promise<Outcome> {
  return new Promise((resolve) => {
    const stream = connection.request(fields, (answer) => resolve({ connection, stream, answer }));
    onStream(stream);
  });
}

function keyOf({ svid, expected, caller, hop }: PoolTarget): string {
  const peers = expected.map(formatIdentity).join(',');
  return `${formatIdentity(svid.identity)} ${peers} ${caller} ${formatHostPort(hop)}`;
}

function lost({ hop }: PoolTarget, reason: string): HboneError {
  return new HboneError(`no answer from ${formatHostPort(hop)}: ${reason}`, { code: 'SESSION_LOST' });
}
