import { type ControlMessage, ControlReader, encodeControlMessage } from './control-messages.ts';
import { FloodGuard } from './flood-guard.ts';
import { fieldOf } from './headers.ts';
import type { Field } from './hpack-tables.ts';
import { OPEN, type PauseAction, type PauseEvent, type PauseState, stepPause } from './pause.ts';
import type { Answer, TunnelStream } from './stream.ts';

/** Why a tunnel was not handed over, and goes on where it is. */
export type Unmoved =
  /** The peer opened no control stream, or none was taken: it knows no hand-over. */
  | 'no_control'
  /** Not all that was under way got through in time. */
  | 'not_flushed'
  /** The peer gave it up. */
  | 'reverted'
  | 'control_lost';

/** A tunnel at rest: nothing is on the way, and nothing more will be sent on its stream. */
export interface Settled {
  /** This end goes away; else the other does, or both. */
  readonly isRetiring: boolean;
  /** Bytes that this end has sent on the stream, and received. */
  readonly sent: number;
  readonly received: number;
}

/** A tunnel that can be handed over, as whoever carries it brings it to rest. None of the callbacks may throw. */
export interface HeldTunnel {
  /** ID of the connection: 32 hexadecimal digits. */
  readonly id: string;
  readonly stream: TunnelStream;
  /**
   * Stop writing to the stream, and call back when that is so, perhaps at once; and take all that comes in on it meanwhile,
   * however slow the far side is. An end that came before may be passed on, none that comes after.
   */
  readonly halt: (halted: () => void) => void;
  /** Go on as before `halt`, if it came to that: it is not handed over. */
  readonly proceed: (why: Unmoved, isRetiring: boolean) => void;
  /** It is handed over: from this call on the stream is no longer the tunnel's, and needs no end. */
  readonly settle: (settled: Settled) => void;
  /** It broke on the way: reset whatever is at both ends, the stream with it. */
  readonly abort: (reason: string) => void;
}

export interface SessionHandOverOptions {
  readonly isServer: boolean;
  /** Sends a client's request for the control stream. Undefined: it cannot be made any more. */
  readonly openControl: (
    fields: readonly Field[],
    onAnswer: (answer: Answer) => void,
  ) => TunnelStream | undefined;
  /** Milliseconds; defaults {@link HALT_MS} and {@link DECISION_MS}. */
  readonly haltMs?: number;
  readonly decisionMs?: number;
}

/** Request for the control stream of a session. */
export const CONTROL_FIELDS: readonly Field[] = [
  [':method', 'POST'],
  [':scheme', 'https'],
  [':authority', 'tulle'],
  [':path', '/.tulle/control'],
];

/** Whether a request is for the control stream. */
export function isControlRequest(fields: readonly Field[]): boolean {
  return fieldOf(fields, ':path') === '/.tulle/control' && fieldOf(fields, ':method') === 'POST';
}

/** What is under way has so long to get through, or is not handed over. */
const HALT_MS = 2_000;
/** Who has come to rest for a peer waits so long for its decision. */
const DECISION_MS = 10_000;
/** Messages: 200 tunnels take a few hundred once. */
const MESSAGES = { burst: 2_000, perSecond: 200 } as const;
/** Announced tunnels that may be about to be held: a session carries 200. */
const MAX_EARLY = 256;
/** Messages that wait for a peer that does not read. */
const MAX_QUEUED_BYTES = 256 * 1024;

type Rested = Extract<ControlMessage, { readonly kind: 'rested' }>;

interface Entry {
  readonly tunnel: HeldTunnel;
  state: PauseState;
  isRetiring: boolean;
  /** Stands for the last `halt`. */
  attempt: object | undefined;
  /** Goes on as before, once the peer is told. */
  proceed: (() => void) | undefined;
  timer: NodeJS.Timeout | undefined;
  /** What `timer` is for. */
  timed: string;
}

/**
 * The hand-over of tunnels on one session, at either of its ends: brings both ends of each to rest, and has them agree that it
 * is handed over, or goes on here. What then becomes of it is for who holds it. docs/decisions/0021-hand-over-of-tunnels.md.
 */
export class SessionHandOver {
  readonly #options: SessionHandOverOptions;
  readonly #entries = new Map<string, Entry>();
  /**
   * Announced in the same breath as the answer that lets a tunnel be held, or of none at all, by the announcement of that number,
   * and how the peer rests since: the last few.
   */
  readonly #early = new Map<string, { readonly number: number; readonly rested?: Rested }>();
  #announcements = 0;
  readonly #flood = new FloodGuard('messages on a control stream', MESSAGES);
  readonly #reader = new ControlReader(() => this.#flood.count());
  #control: TunnelStream | undefined;
  #isOpen = false;
  #isRetiring = false;
  #isLost = false;
  #onChange: (() => void)[] = [];

  constructor(options: SessionHandOverOptions) {
    this.#options = options;
  }

  /** Whether tunnels of this session can be handed over now: there is a control stream. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Whether tunnels of this session can no longer be handed over: its peer does not take part, or has made no sense. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** The stream of control itself, which carries nobody's bytes. */
  get control(): TunnelStream | undefined {
    return this.#control;
  }

  /**
   * Holds a tunnel from now until its stream is over. For a client: when the server has echoed the connection's ID; the first one
   * opens the control stream. For a server: when it echoes it.
   */
  hold(tunnel: HeldTunnel): void {
    if (this.#isLost || this.#entries.has(tunnel.id)) return;
    tunnel.stream.connectionId = tunnel.id;
    const entry: Entry = {
      tunnel,
      state: OPEN,
      isRetiring: false,
      attempt: undefined,
      proceed: undefined,
      timer: undefined,
      timed: '',
    };
    this.#entries.set(tunnel.id, entry);
    if (this.#isRetiring && this.#isOpen) this.#announce([entry]);
    if (!this.#options.isServer && this.#control === undefined) this.#openControl();
    this.#hearEarly(entry);
  }

  /** What the peer said of it before it was held. */
  #hearEarly(entry: Entry): void {
    const { id } = entry.tunnel;
    const early = this.#early.get(id);
    if (early === undefined) return;
    this.#early.delete(id);
    this.#step(entry, { kind: 'announced', number: early.number });
    if (early.rested !== undefined) this.#onPeerRested(early.rested);
  }

  /** A stream is over. */
  forget({ connectionId }: TunnelStream): void {
    const entry = connectionId === undefined ? undefined : this.#entries.get(connectionId);
    if (entry !== undefined) this.#remove(entry);
  }

  /** This end goes away, for one of its tunnels: has it handed over. What is not held stays as it is. */
  depart({ connectionId }: TunnelStream): void {
    const entry = connectionId === undefined ? undefined : this.#entries.get(connectionId);
    if (entry === undefined) return;
    entry.isRetiring = true;
    if (this.#isOpen) {
      this.#announce([entry]);
      return;
    }
    setTimeout(() => {
      if (!this.#isOpen && this.#entries.get(entry.tunnel.id) === entry) this.#giveUp(entry);
    }, this.#haltMs).unref();
  }

  /** Has a tunnel go on where it is, whoever goes away. One of which a hand-over has begun comes to the end of that. */
  letGo({ connectionId }: TunnelStream): void {
    const entry = connectionId === undefined ? undefined : this.#entries.get(connectionId);
    if (entry?.state.kind === 'open') this.#remove(entry);
  }

  /** For a server: takes the client's control stream, which has been answered. False: there is one. */
  acceptControl(stream: TunnelStream): boolean {
    if (this.#control !== undefined || this.#isLost) return false;
    this.#listen(stream);
    return true;
  }

  /**
   * This end goes away: has all tunnels that are held handed over, also those that it holds from now on. Harmless when it has been
   * called.
   * @returns when each that is held has settled, goes on here, or is over: after a few seconds at most, whatever the peer does
   */
  async retire(): Promise<void> {
    if (this.#isRetiring) return;
    this.#isRetiring = true;
    if (this.#isOpen) this.#announce([...this.#entries.values()]);
    else await this.#untilOpen();
    if (!this.#isOpen) for (const entry of [...this.#entries.values()]) this.#giveUp(entry);
    const isUnderWay = ({ state }: Entry): boolean => state.kind !== 'open';
    while ([...this.#entries.values()].some(isUnderWay)) await this.#untilChange();
  }

  /** For good: also when there is a control stream later. */
  #giveUp(entry: Entry): void {
    this.#remove(entry);
    entry.tunnel.proceed('no_control', true);
  }

  /** In one message; what follows from it comes after. */
  #announce(entries: readonly Entry[]): void {
    this.#announcements += 1;
    const number = this.#announcements;
    const retired = entries.map((entry) => {
      const { state, actions } = stepPause(entry.state, { kind: 'retire', number }, this.#isClient);
      entry.isRetiring = true;
      entry.state = state;
      return { entry, actions };
    });
    const announced = retired.filter(({ actions }) => actions.some(({ kind }) => kind === 'announce'));
    if (announced.length > 0)
      this.#tell({ kind: 'announce', number, ids: announced.map(({ entry }) => entry.tunnel.id) });
    for (const { entry, actions } of retired) this.#act(entry, actions);
  }

  get #isClient(): boolean {
    return !this.#options.isServer;
  }

  #openControl(): void {
    const stream = this.#options.openControl(CONTROL_FIELDS, (answer) => {
      const isTaken = answer.kind === 'answered' && fieldOf(answer.fields, ':status') === '200';
      if (isTaken && stream !== undefined) this.#listen(stream);
      else stream?.abort('CANCEL');
    });
    // It cannot be taken from now on, whatever comes of it: one is asked for once.
    this.#control = stream;
  }

  #listen(stream: TunnelStream): void {
    this.#control = stream;
    this.#isOpen = true;
    stream.start({
      onData: (bytes) => this.#onData(bytes),
      onEnd: () => this.lose(),
      onDrain: () => undefined,
      onFinish: () => undefined,
      onAbort: () => this.lose(),
    });
    const retiring = [...this.#entries.values()].filter((each) => this.#isRetiring || each.isRetiring);
    if (retiring.length > 0) this.#announce(retiring);
    this.#changed();
  }

  /** The control stream, or the whole session, is gone. */
  lose(): void {
    if (this.#isLost) return;
    this.#isLost = true;
    this.#isOpen = false;
    const stream = this.#control;
    for (const entry of [...this.#entries.values()]) {
      entry.proceed?.();
      this.#step(entry, { kind: 'lost' });
    }
    this.#changed();
    stream?.abort('CANCEL');
  }

  /** Or for so long that the peer will not open it any more. */
  async #untilOpen(): Promise<void> {
    const late = performance.now() + this.#haltMs;
    const timer = setTimeout(() => this.#changed(), this.#haltMs + 1);
    while (!this.#isOpen && !this.#isLost && this.#entries.size > 0 && performance.now() < late)
      await this.#untilChange();
    clearTimeout(timer);
  }

  #untilChange(): Promise<void> {
    return new Promise((resolve) => this.#onChange.push(resolve));
  }

  get #haltMs(): number {
    return this.#options.haltMs ?? HALT_MS;
  }

  #onData(bytes: Buffer): void {
    if (this.#isLost) return;
    try {
      for (const message of this.#reader.read(bytes)) this.#onMessage(message);
    } catch {
      // What the peer says makes no sense: its tunnels go on, but none is handed over.
      this.lose();
    }
  }

  #onMessage(message: ControlMessage): void {
    switch (message.kind) {
      case 'announce':
        for (const id of message.ids) this.#onAnnounced(id, message.number);
        break;
      case 'rested':
        this.#onPeerRested(message);
        break;
      case 'commit':
      case 'revert':
        this.#early.delete(message.id);
        this.#stepOf(message.id, { kind: message.kind });
    }
  }

  #onAnnounced(id: string, number: number): void {
    if (this.#entries.has(id)) {
      this.#stepOf(id, { kind: 'announced', number });
      return;
    }
    this.#early.set(id, { number });
    for (const oldest of this.#early.keys()) {
      if (this.#early.size <= MAX_EARLY) break;
      this.#early.delete(oldest);
    }
  }

  #onPeerRested(rested: Rested): void {
    const { id, sent, fin, follows } = rested;
    const entry = this.#entries.get(id);
    if (entry === undefined) {
      const early = this.#early.get(id);
      if (early !== undefined) this.#early.set(id, { ...early, rested });
      return;
    }
    const { stream } = entry.tunnel;
    const received = { sent: stream.bytesRead(), fin: stream.hasReceivedEnd };
    this.#step(entry, { kind: 'peer-rested', rest: { sent, fin }, follows, received });
  }

  #stepOf(id: string, event: PauseEvent): void {
    // Of a tunnel that is over, or never was on this session.
    const entry = this.#entries.get(id);
    if (entry !== undefined) this.#step(entry, event);
  }

  #step(entry: Entry, event: PauseEvent): void {
    const { state, actions } = stepPause(entry.state, event, this.#isClient);
    entry.state = state;
    this.#act(entry, actions);
  }

  #act(entry: Entry, actions: readonly PauseAction[]): void {
    this.#setTimer(entry);
    for (const action of actions) this.#do(entry, action);
    if (entry.state.kind === 'open') this.#changed();
  }

  #do(entry: Entry, action: PauseAction): void {
    const { tunnel } = entry;
    switch (action.kind) {
      case 'announce':
        break; // all at once, by `retire`
      case 'halt':
        this.#halt(entry);
        break;
      case 'tell-rest':
        this.#tell({ kind: 'rested', id: tunnel.id, ...action.rest, follows: action.follows });
        break;
      case 'tell-commit':
        this.#tell({ kind: 'commit', id: tunnel.id });
        this.#control?.whenFlushed(() => this.#step(entry, { kind: 'sent' }));
        break;
      case 'tell-revert':
        this.#tell({ kind: 'revert', id: tunnel.id });
        break;
      case 'proceed':
        this.#proceed(entry, action.why);
        break;
      case 'settle':
        this.#settle(entry);
        break;
      case 'abort':
        this.#remove(entry);
        tunnel.abort(action.reason);
    }
  }

  /** A hand-over that was given up meanwhile and begun again is another. */
  #halt(entry: Entry): void {
    const { tunnel } = entry;
    const { stream } = tunnel;
    const attempt = {};
    entry.attempt = attempt;
    tunnel.halt(() =>
      stream.whenFlushed(() => {
        if (entry.attempt !== attempt || entry.state.kind !== 'pausing') return;
        this.#step(entry, { kind: 'rested', rest: { sent: stream.bytesWritten, fin: stream.hasSentEnd } });
      }),
    );
  }

  /** What was said goes before what is sent then. */
  #proceed(entry: Entry, why: Unmoved): void {
    entry.attempt = undefined;
    let isDone = false;
    const proceed = (): void => {
      if (!isDone) entry.tunnel.proceed(why, entry.isRetiring);
      isDone = true;
      entry.proceed = undefined;
    };
    entry.proceed = proceed;
    if (this.#isLost || this.#control === undefined) proceed();
    else this.#control.whenFlushed(proceed);
  }

  #settle(entry: Entry): void {
    const { tunnel, isRetiring } = entry;
    const { stream } = tunnel;
    this.#remove(entry);
    if (stream.bytesWaiting > 0) {
      tunnel.abort('more came in a hand-over than was taken');
      return;
    }
    tunnel.settle({ isRetiring, sent: stream.bytesWritten, received: stream.bytesRead() });
    stream.release();
  }

  #setTimer(entry: Entry): void {
    const { state } = entry;
    const isUnderWay = state.kind === 'pausing' || state.kind === 'committing';
    const decides = state.kind !== 'pausing' || state.follows === undefined;
    const timed = isUnderWay ? `${state.kind} ${decides}` : '';
    if (timed === entry.timed) return;
    entry.timed = timed;
    clearTimeout(entry.timer);
    entry.timer = undefined;
    if (!isUnderWay) return;
    const ms = decides ? this.#haltMs : (this.#options.decisionMs ?? DECISION_MS);
    entry.timer = setTimeout(() => this.#step(entry, { kind: 'late' }), ms);
  }

  #remove(entry: Entry): void {
    clearTimeout(entry.timer);
    entry.state = { kind: 'over' };
    entry.tunnel.stream.connectionId = undefined;
    this.#entries.delete(entry.tunnel.id);
    this.#changed();
  }

  #tell(message: ControlMessage): void {
    if (this.#control === undefined || this.#isLost) return;
    this.#control.write(encodeControlMessage(message));
    // The peer asks, and does not read the answers.
    if (this.#control.bytesQueued > MAX_QUEUED_BYTES) setImmediate(() => this.lose());
  }

  #changed(): void {
    for (const resolve of this.#onChange.splice(0)) resolve();
  }
}
