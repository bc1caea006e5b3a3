import type { Connection } from '#ztunnel/hbone/connection.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';
import type { CarriedTunnel, CarriedUse } from './carried-tunnel.ts';
import type { ClientTunnel } from './client-tunnel.ts';
import { LastingLeg, type LegState } from './lasting-leg.ts';

/** What a caller's end of a tunnel is called, and whose it is. */
export interface ServerTunnelOptions {
  /** ID of the connection, as the caller's ztunnel gave it. */
  readonly id: string;
  /** Who alone may take it up again. */
  readonly claimant: string;
  /** It has lost its stream, for another that is to come. */
  readonly onAway: (tunnel: ServerTunnel) => void;
  /** It was to lose its stream, and keeps it. */
  readonly onStays: (tunnel: ServerTunnel) => void;
  /** It may have become one that could go to another process. */
  readonly onReady: (tunnel: ServerTunnel) => void;
}

/** Lets a tunnel go to another process, whatever it is used for. */
export interface Carrier {
  /** Whether it could go now: nothing is under way that would not go with it. */
  readonly isReady: () => boolean;
  /** The application's end, where there is one: it goes first. */
  readonly upstream?: ClientTunnel;
  /** What it is, for the process that goes on with it. To be asked when both ends are away. */
  readonly describe: () => Pick<CarriedTunnel, 'caller' | 'authority' | 'frontend'> & {
    readonly use: CarriedUse;
  };
  /** It has gone: lets go of all that stands for it here, and tells nobody. */
  readonly leave: () => void;
}

/** The caller's end of a tunnel: it outlives the caller's ztunnel, and perhaps this process. */
export class ServerTunnel {
  readonly id: string;
  readonly claimant: string;
  readonly leg: LastingLeg;
  /** Undefined: it cannot go to another process, whenever. Set by whoever uses the tunnel. */
  carrier: Carrier | undefined;
  readonly #options: ServerTunnelOptions;
  #session: Connection | undefined;

  /** @param from its stream, or what another process had in hand of it: then it waits for one */
  constructor(from: TunnelStream | LegState, options: ServerTunnelOptions) {
    this.id = options.id;
    this.claimant = options.claimant;
    this.#options = options;
    this.leg = new LastingLeg(from, {
      onAway: () => options.onAway(this),
      onStays: () => options.onStays(this),
    });
  }

  /** Whether it could go to another process now: its caller's ztunnel would take part, or has done so. */
  get canGo(): boolean {
    if (this.leg.isOver) return false;
    return this.leg.stream === undefined || this.#session?.handOver.isOpen === true;
  }

  /** Goes on with the stream of a CONNECT that was answered, if it has none. It is not held yet. */
  attach(session: Connection, stream: TunnelStream): void {
    this.#session = session;
    if (this.leg.stream === undefined) this.leg.attach(stream);
  }

  /** From now on it is handed over when an end of its session goes away: its ztunnel has been told that it can be. */
  hold(): void {
    const { stream } = this.leg;
    if (stream !== undefined && !this.leg.isOver)
      this.#session?.handOver.hold(this.leg.asHeldTunnel(this.id, stream));
  }

  /** This process goes away: it is handed over. To be called when it {@link canGo}. */
  go(): void {
    const { stream } = this.leg;
    this.hold();
    if (stream !== undefined) this.#session?.handOver.depart(stream);
  }

  /** It is not to be handed over, unless that has begun. Until {@link go}. */
  release(): void {
    const { stream } = this.leg;
    if (stream !== undefined) this.#session?.handOver.letGo(stream);
  }

  /** To be called when its carrier may have become ready. */
  noteReady(): void {
    if (this.carrier?.isReady() === true) this.#options.onReady(this);
  }
}
