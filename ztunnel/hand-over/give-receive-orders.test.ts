import fc from 'fast-check';
import pino from 'pino';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { NativeError } from '../capture/native.ts';
import { type CarriedConnection, parseCarried } from './carried.ts';
import { Giver } from './give.ts';
import type { LineSocketOptions } from './line-socket.ts';
import type { Settled } from './port.ts';
import { Receiver } from './receive.ts';
import type { HandOverSystem } from './system.ts';

/**
 * Both ends of a hand-over as they are, with a kernel and a channel between them that do one thing at a time: any message may be
 * late, any process may die between any two of them.
 */

const [ESRCH, EBADF] = [3, 9];
const logger = pino({ level: 'silent' });

interface Sock {
  readonly number: number;
  isOffered: boolean;
  /** How many descriptors of it are open. */
  references: number;
}

/** A process by what it has open. */
class Process {
  isAlive = true;
  readonly open = new Map<number, Sock | Process>();
  #last = 2;

  add(what: Sock | Process): number {
    this.#last += 1;
    this.open.set(this.#last, what);
    if (!(what instanceof Process)) what.references += 1;
    return this.#last;
  }

  socket(fd: number): Sock {
    const found = this.open.get(fd);
    if (found === undefined || found instanceof Process) throw new NativeError('socket', EBADF);
    return found;
  }

  close(fd: number): void {
    const found = this.open.get(fd);
    // A second time: it may be somebody else's by then.
    if (found === undefined) throw new TypeError(`descriptor ${fd} is closed twice`);
    this.open.delete(fd);
    if (!(found instanceof Process)) found.references -= 1;
  }

  die(): void {
    this.isAlive = false;
    for (const fd of [...this.open.keys()]) this.close(fd);
  }

  sockets(): readonly number[] {
    return [...this.open.values()]
      .flatMap((each) => (each instanceof Process ? [] : each.number))
      .sort(byNumber);
  }
}

/** One end of the channel: what it has said is with its process, then with the kernel, then heard. */
class End {
  readonly #process: Process;
  readonly #unsent: object[] = [];
  readonly sent: object[] = [];
  options: LineSocketOptions | undefined;
  isEnding = false;
  isClosed = false;

  constructor(process: Process) {
    this.#process = process;
  }

  open(
    options: LineSocketOptions,
    isSlow: () => boolean,
  ): Disposable & { send(message: object): void; end(): void } {
    this.options = options;
    return {
      send: (message) => {
        if (this.isClosed || this.isEnding) return;
        this.#unsent.push(JSON.parse(JSON.stringify(message)) as object);
        if (!isSlow()) this.flush();
      },
      end: () => {
        this.isEnding = true;
      },
      [Symbol.dispose]: () => this.close(undefined),
    };
  }

  flush(): void {
    if (!this.isClosed && this.#process.isAlive) this.sent.push(...this.#unsent.splice(0));
  }

  /** Nothing more is to be heard of it, once what the kernel has is read. */
  get isSilent(): boolean {
    const isDone = this.isEnding && this.#unsent.length === 0;
    return this.sent.length === 0 && (isDone || this.isClosed || !this.#process.isAlive);
  }

  close(error: Error | undefined): void {
    if (this.isClosed) return;
    this.isClosed = true;
    if (this.#process.isAlive) this.options?.onClose(error);
  }

  /** Hears one message of the other's, or that nothing more comes. */
  hear(other: End): void {
    if (this.isClosed || !this.#process.isAlive) return;
    const message = other.sent.shift();
    if (message === undefined) {
      if (other.isSilent) {
        this.flush();
        this.close(undefined);
      }
      return;
    }
    try {
      this.options?.onMessage(message);
    } catch (error) {
      this.close(error as Error);
    }
  }
}

type Fate = 'offered' | Settled;

class World {
  readonly old = new Process();
  readonly next = new Process();
  readonly #oldEnd = new End(this.old);
  readonly #nextEnd = new End(this.next);
  readonly #giver: Giver;
  readonly #receiver: Receiver;
  readonly #fates = new Map<number, Fate>();
  readonly #delivered = new Set<number>();
  #isAsked: ((isGone: boolean) => void) | undefined;
  isSlow = false;
  willRefuse = false;
  willFall = false;
  /** The successor, before the other had said its last word. */
  hasBrokenOff = false;

  constructor() {
    this.#giver = new Giver({ logger, answerMs: 1_000, system: this.#systemOf(this.old) });
    this.#giver.speak((options) => this.#oldEnd.open(options, () => this.isSlow));
    this.#receiver = new Receiver((options) => this.#nextEnd.open(options, () => false), {
      logger,
      system: this.#systemOf(this.next),
      whyNot: () => {
        if (this.willFall) {
          this.hasBrokenOff = true;
          throw new TypeError('it fell over');
        }
        return this.willRefuse ? 'not now' : undefined;
      },
      onConnection: (connection) => this.#deliver(connection),
      onOutcome: () => undefined,
      onEnd: () => undefined,
    });
  }

  #systemOf(process: Process): HandOverSystem {
    return {
      cookie: (fd) => BigInt(process.socket(fd).number),
      close: (fd) => process.close(fd),
      openProcess: () => {
        if (!this.old.isAlive) throw new NativeError('pidfd_open', ESRCH);
        return process.add(this.old);
      },
      take: (_, fd) => {
        if (!this.old.isAlive) throw new NativeError('pidfd_getfd', ESRCH);
        return process.add(this.old.socket(fd));
      },
      setOffered: (fd, isOffered) => {
        process.socket(fd).isOffered = isOffered;
      },
      isOffered: (fd) => process.socket(fd).isOffered,
      whenGone: (_, done) => {
        this.#isAsked = done;
      },
    };
  }

  /** Two connections may have one ID. */
  offer(id: number): void {
    if (!this.old.isAlive) return;
    const number = this.#fates.size + 1;
    const fd = this.old.add({ number, isOffered: false, references: 0 });
    this.#fates.set(number, 'offered');
    void this.#giver.offer(connectionOf(id, fd)).then((settled) => {
      if (!this.old.isAlive) return;
      this.#fates.set(number, settled);
      if (settled === 'kept') expect(this.#delivered).not.toContain(number);
    });
  }

  #deliver({ sockets: [socket] }: CarriedConnection): void {
    const { number } = this.next.socket(socket?.fd ?? -1);
    expect(this.#delivered).not.toContain(number);
    expect(this.#fates.get(number)).not.toBe('kept');
    this.#delivered.add(number);
  }

  async play(move: Move): Promise<void> {
    switch (move) {
      case 'first':
      case 'second':
        this.offer(move === 'first' ? 1 : 2);
        break;
      case 'old-hears':
        this.#oldEnd.hear(this.#nextEnd);
        break;
      case 'next-hears':
        this.#nextEnd.hear(this.#oldEnd);
        break;
      case 'late':
        if (this.old.isAlive) vi.advanceTimersByTime(1_000);
        break;
      case 'slow':
        this.isSlow = true;
        break;
      case 'flush':
        this.isSlow = false;
        this.#oldEnd.flush();
        break;
      case 'refuse':
        this.willRefuse = !this.willRefuse;
        break;
      case 'fall':
        this.willFall = true;
        break;
      case 'old-closes':
        if (this.old.isAlive) this.#giver.close();
        break;
      case 'next-closes':
        this.hasBrokenOff = true;
        if (this.next.isAlive) this.#receiver[Symbol.dispose]();
        break;
      case 'old-dies':
        this.old.die();
        break;
      case 'next-dies':
        this.next.die();
        break;
      case 'asked':
        this.#answer();
    }
    for (let turn = 0; turn < 4; turn += 1) await Promise.resolve();
  }

  #answer(): void {
    const done = this.#isAsked;
    this.#isAsked = undefined;
    if (this.next.isAlive) done?.(!this.old.isAlive);
  }

  /** All that is under way comes to its end. */
  async finish(): Promise<void> {
    for (let round = 0; round < 60; round += 1)
      for (const move of ['flush', 'old-hears', 'next-hears'] as const) await this.play(move);
    for (const move of ['late', 'flush', 'next-hears', 'old-closes', 'flush', 'next-hears'] as const)
      for (let round = 0; round < 60; round += 1) await this.play(move);
    await this.play('asked');
    this.check();
  }

  check(): void {
    const fated = (fate: Fate): readonly number[] =>
      [...this.#fates].flatMap(([number, each]) => (each === fate ? [number] : []));
    // Nothing is left open that is nobody's, and nobody's is closed.
    if (this.old.isAlive) expect([this.old.sockets(), fated('offered')]).toEqual([fated('kept'), []]);
    if (this.next.isAlive) expect(this.next.sockets()).toEqual([...this.#delivered].sort(byNumber));
    // What one says that the other has is there, unless that one has gone or let go.
    if (this.old.isAlive && this.next.isAlive && !this.hasBrokenOff)
      expect([...this.#delivered].sort(byNumber)).toEqual(fated('taken'));
  }

  get deliveries(): number {
    return this.#delivered.size;
  }
}

function byNumber(one: number, other: number): number {
  return one - other;
}

function connectionOf(id: number, fd: number): CarriedConnection {
  const peer = { address: '10.0.0.1:1' };
  return parseCarried({
    ...{ id: `${id}`.padStart(32, '0'), kind: 'passthrough', podUid: 'pod' },
    record: {
      facts: { direction: 'outbound', source: peer, destination: peer, security: 'unknown' },
      info: { podUid: 'pod', direction: 'outbound', source: '', destination: '', protocol: 'TCP' },
      openedAtMs: 1,
      told: { received: 0, sent: 0 },
    },
    sockets: [{ fd, hasEnded: false, hasFinished: false, unsent: '' }],
  });
}

const MOVES = ['first', 'second', 'old-hears', 'next-hears'] as const;
const RARE = ['late', 'slow', 'flush', 'refuse', 'asked'] as const;
const LAST = ['old-dies', 'next-dies', 'old-closes', 'next-closes', 'fall'] as const;
type Move = (typeof MOVES)[number] | (typeof RARE)[number] | (typeof LAST)[number];

const common = { weight: 5, arbitrary: fc.constantFrom<Move>(...MOVES) };
const rare = { weight: 4, arbitrary: fc.constantFrom<Move>(...RARE) };
const last = { weight: 1, arbitrary: fc.constantFrom<Move>(...LAST) };
/** Something ends sooner or later. */
const moves = fc
  .tuple(
    fc.constantFrom<Move[]>([], ['next-hears']),
    fc.array(fc.oneof(common, rare), { maxLength: 25 }),
    fc.constantFrom<Move>(...LAST, ...RARE),
    fc.array(fc.oneof(common, rare, last), { maxLength: 25 }),
  )
  .map(([greeting, before, end, after]) => [...greeting, ...before, end, ...after]);

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});
afterEach(() => {
  vi.useRealTimers();
});

test('in any order of events, whoever dies when, each connection has one owner at most, and nothing leaks', async () => {
  let [delivered, outlived] = [0, 0];
  await fc.assert(
    fc.asyncProperty(moves, async (all) => {
      vi.clearAllTimers(); // those of processes that have died
      const world = new World();
      for (const move of all) await world.play(move);
      await world.finish();
      delivered += world.deliveries;
      if (!world.old.isAlive) outlived += world.deliveries;
    }),
    { numRuns: 1_000 },
  );
  expect([delivered > 20, outlived > 5]).toEqual([true, true]);
});
