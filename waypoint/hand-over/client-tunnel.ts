import { setTimeout as delay } from 'node:timers/promises';
import { HboneError } from '#ztunnel/hbone/error.ts';
import { CONNECTION_ID_HEADER, fieldOf } from '#ztunnel/hbone/headers.ts';
import type { OpenTunnel } from '#ztunnel/hbone/pool.ts';
import type { TunnelWay } from './carried-tunnel.ts';
import { LastingLeg, type LegState } from './lasting-leg.ts';

/** How an application's end of a tunnel is asked for again, and what became of that. */
export interface ClientTunnelOptions {
  /** ID of the connection, which this end has given it. */
  readonly id: string;
  /** Sends a CONNECT that takes the tunnel up. @throws HboneError */
  readonly reopen: () => Promise<OpenTunnel>;
  /** What it takes to reopen it, for another process. */
  readonly way: TunnelWay;
  readonly onResumed: (isResumed: boolean) => void;
}

/** Told what becomes of a tunnel that is to go to another process. */
export interface Departure {
  /** It has left its stream: {@link ClientTunnel.isAway}. */
  readonly onAway: () => void;
  /** It goes on here after all. */
  readonly onStays: () => void;
}

/** How long it is tried to take a tunnel up again, and how long to wait after a try in vain. */
const RESUME_MS = 10_000;
const RETRY_MS = 100;
/** Nobody has looked at the request, or nobody can tell: who asks twice is answered once. */
const RETRIED: ReadonlySet<string> = new Set(['CONNECT_FAILED', 'SESSION_LOST']);

/** The application's end of a tunnel: it outlives the application's ztunnel, and perhaps this process. */
export class ClientTunnel {
  readonly id: string;
  readonly way: TunnelWay;
  readonly leg: LastingLeg;
  readonly #options: ClientTunnelOptions;
  /** Where it is, if its server can hand over. */
  #opened: OpenTunnel | undefined;
  #departure: Departure | undefined;
  #isAway = false;

  /** @param from an answered CONNECT, whose server can hand over; or what another process had in hand */
  constructor(from: OpenTunnel | LegState, options: ClientTunnelOptions) {
    this.id = options.id;
    this.way = options.way;
    this.#options = options;
    this.leg = new LastingLeg('stream' in from ? from.stream : from, {
      onAway: () => this.#onAway(),
      onStays: () => this.#onStays(),
    });
    TUNNELS.set(this.leg, this);
    if ('stream' in from) this.#onOpened(from);
  }

  /** Without a stream: ready to go to another process. */
  get isAway(): boolean {
    return this.#isAway && !this.leg.isOver;
  }

  /** Whether it could go to another process now: its destination's ztunnel would take part. */
  get canGo(): boolean {
    return this.#opened?.connection.handOver.isLost === false && !this.leg.isOver;
  }

  /** It is to go to another process; harmless when it is on its way. To be called when it {@link canGo}. */
  go(departure: Departure): void {
    if (this.#opened === undefined || this.#departure !== undefined) return;
    this.#departure = departure;
    this.#opened.connection.handOver.depart(this.#opened.stream);
  }

  /** Asks its destination for it, and goes on; what cannot be had is reset. Never rejects. */
  async resume(): Promise<void> {
    this.#isAway = false;
    try {
      const opened = await this.#ask();
      const status = fieldOf(opened.fields, ':status') ?? 'none';
      if (status !== '200') {
        opened.stream.abort('CANCEL');
        throw new HboneError(`status ${status}`, { code: 'BAD_STATUS' });
      }
      this.leg.attach(opened.stream);
      if (this.leg.isOver) return;
      if (canMove(opened, this.id)) this.#onOpened(opened);
      this.#options.onResumed(true);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.leg.lose(`not taken up after a restart: ${why}`);
      this.#options.onResumed(false);
    }
  }

  async #ask(): Promise<OpenTunnel> {
    const deadline = performance.now() + RESUME_MS;
    for (;;) {
      try {
        return await this.#options.reopen();
      } catch (error) {
        const isGone = error instanceof HboneError && RETRIED.has(error.code);
        if (!isGone || this.leg.isOver || performance.now() > deadline) throw error;
      }
      await delay(RETRY_MS);
    }
  }

  #onOpened(opened: OpenTunnel): void {
    const { connection, stream } = opened;
    this.#opened = opened;
    connection.handOver.hold(this.leg.asHeldTunnel(this.id, stream));
  }

  #onAway(): void {
    const departure = this.#departure;
    this.#opened = undefined;
    this.#departure = undefined;
    if (departure === undefined) {
      void this.resume();
      return;
    }
    this.#isAway = true;
    departure.onAway();
  }

  #onStays(): void {
    const departure = this.#departure;
    this.#departure = undefined;
    departure?.onStays();
  }
}

const TUNNELS = new WeakMap<object, ClientTunnel>();

/** The tunnel that a leg is of; undefined for one that cannot be handed over. */
export function clientTunnelOf(leg: object): ClientTunnel | undefined {
  return TUNNELS.get(leg);
}

/** Whether the server of a CONNECT has said that its tunnel can be handed over. */
export function canMove({ fields }: OpenTunnel, id: string): boolean {
  return fieldOf(fields, CONNECTION_ID_HEADER) === id;
}
