import { setTimeout as delay } from 'node:timers/promises';
import { type Claim, Parked, type ParkedOptions } from '#ztunnel/hand-over/parked.ts';
import type { Connection } from '#ztunnel/hbone/connection.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';
import type { CarriedTunnel } from './carried-tunnel.ts';
import { type Carrier, ServerTunnel } from './server-tunnel.ts';

/** What has become of a tunnel that a restart met: of this waypoint, or of a ztunnel at one of its ends. */
export type HandOverOutcome = 'handed_over' | `drained_${string}` | `reset_${string}`;

/** `downstream`, `upstream`: of a ztunnel at that end; the others: of this waypoint, by what was spoken inside. */
export type TunnelKind = 'downstream' | 'upstream' | 'tunnel';

/** The process that comes after this one. */
export interface Successor {
  /** False: it has gone. */
  readonly isThere: () => boolean;
  readonly send: (tunnel: CarriedTunnel) => void;
  /** Nothing more comes: resolves when it has read all, or will not. */
  readonly finish: () => Promise<void>;
}

/** How often what could not go yet is looked at again. */
const LOOK_MS = 50;

/** The tunnels of this process that can go on without one of the processes that they are made of. */
export class HandOver {
  readonly #parked: Parked<ServerTunnel>;
  readonly #tunnels = new Set<ServerTunnel>();
  readonly #counts = new Map<string, number>();
  /** Those that are asked to leave their ends, and those that stay here after all, to their end. */
  readonly #going = new Set<ServerTunnel>();
  readonly #staying = new Set<ServerTunnel>();
  #successor: Successor | undefined;
  #isRetiring = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param limit of tunnels, and of claims, that may wait at a time */
  constructor({ limit }: Pick<ParkedOptions, 'limit'> = {}) {
    this.#parked = new Parked<ServerTunnel>({
      ...(limit !== undefined && { limit }),
      onUnclaimed: (tunnel, why) => {
        this.count('downstream', why === 'late' ? 'reset_not_resumed' : 'reset_full');
        tunnel.leg.lose('its caller did not come back after a restart');
      },
    });
  }

  /** By kind and outcome, as `downstream handed_over`. */
  get counts(): ReadonlyMap<string, number> {
    return this.#counts;
  }

  count(kind: TunnelKind, outcome: HandOverOutcome): void {
    const key = `${kind} ${outcome}`;
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }

  /** A CONNECT that was answered, with its ID said back: the tunnel can be handed over from now on. */
  accept(session: Connection, stream: TunnelStream, id: string, claimant: string): ServerTunnel {
    const tunnel = this.#open(stream, id, claimant);
    this.attach(tunnel, session, stream);
    return tunnel;
  }

  /** A CONNECT was answered that takes up a tunnel which was claimed. */
  attach(tunnel: ServerTunnel, session: Connection, stream: TunnelStream): void {
    tunnel.attach(session, stream);
    // What comes now may never be able to go: it is held when it is.
    if (!this.#isRetiring) tunnel.hold();
  }

  /** Passes on what the process before this one has given up, where this one does so itself. @returns whether it did */
  passOn(tunnel: CarriedTunnel): boolean {
    if (!this.#isRetiring || this.#successor?.isThere() !== true) return false;
    this.#successor.send(tunnel);
    this.count('tunnel', 'handed_over');
    return true;
  }

  /** A tunnel of the process before this one: it waits for its caller's ztunnel to take it up. */
  adopt({ id, claimant, downstream }: CarriedTunnel): ServerTunnel {
    const tunnel = this.#open(downstream, id, claimant);
    this.#parked.park(tunnel);
    return tunnel;
  }

  /** Who claimed it has gone before it came; it waits for whoever asks again. */
  putBack(tunnel: ServerTunnel): void {
    this.#parked.park(tunnel);
  }

  /** The tunnel that a CONNECT wants to take up; waits for it, if it is not there yet. */
  async claim(id: string, claimant: string): Promise<Claim<ServerTunnel>> {
    return this.#parked.claim(id, claimant);
  }

  /** Whether this process is about to end, and another takes its place. */
  get isRetiring(): boolean {
    return this.#isRetiring;
  }

  /** Whether a tunnel need not end when this process does. */
  mayOutlive(tunnel: ServerTunnel | undefined): boolean {
    return tunnel?.canGo === true && !this.#staying.has(tunnel) && this.#successor?.isThere() === true;
  }

  /**
   * Hands over what can be: now, or when it can be, also what waits here for its caller. To be called when callers open no more
   * tunnels.
   */
  retire(successor: Successor): void {
    this.#successor = successor;
    this.#isRetiring = true;
    // What cannot go is not to be left here by its caller's ztunnel, which could not come back for it.
    for (const tunnel of this.#tunnels) if (tunnel.carrier === undefined) tunnel.release();
    // Whoever asks for one that is not here is sent on; one that has to stay can still be had.
    for (const tunnel of this.#parked.move()) this.#parked.park(tunnel);
    const look = (): void => {
      for (const tunnel of [...this.#tunnels]) this.#advance(tunnel);
    };
    look();
    this.#timer = setInterval(look, LOOK_MS).unref();
  }

  /** Resolves when no tunnel waits here for its caller, or for its turn to go. */
  async untilNoneWaits(): Promise<void> {
    while ([...this.#tunnels].some(({ leg }) => leg.stream === undefined)) await delay(LOOK_MS);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#parked.close();
  }

  #open(from: ConstructorParameters<typeof ServerTunnel>[0], id: string, claimant: string): ServerTunnel {
    const tunnel = new ServerTunnel(from, {
      id,
      claimant,
      onAway: (each) => {
        this.#parked.park(each);
        this.#advance(each);
      },
      onStays: (each) => {
        if (this.#going.has(each)) this.#stay(each, 'drained_downstream_stays');
      },
      onReady: (each) => this.#advance(each),
    });
    this.#tunnels.add(tunnel);
    tunnel.leg.whenOver(() => {
      this.#tunnels.delete(tunnel);
      this.#going.delete(tunnel);
      this.#staying.delete(tunnel);
    });
    return tunnel;
  }

  /** Has a tunnel do the next step on its way to the successor: the application's end leaves first, then the caller's. */
  #advance(tunnel: ServerTunnel): void {
    const { carrier, leg } = tunnel;
    const upstream = carrier?.upstream;
    if (!this.#isRetiring || leg.isOver || this.#staying.has(tunnel)) return;
    if (carrier?.isReady() !== true || !this.mayOutlive(tunnel)) {
      if (this.#going.has(tunnel)) this.#stay(tunnel, 'drained_downstream_stays');
    } else if (upstream === undefined || upstream.isAway) {
      leg.freeze();
      this.#going.add(tunnel);
      if (leg.stream === undefined) this.#send(tunnel, carrier);
      else tunnel.go();
    } else if (upstream.canGo) {
      leg.freeze();
      this.#going.add(tunnel);
      upstream.go({
        onAway: () => this.#advance(tunnel),
        onStays: () => this.#stay(tunnel, 'drained_upstream_stays'),
      });
    }
  }

  #send(tunnel: ServerTunnel, carrier: Carrier): void {
    const { id, claimant, leg } = tunnel;
    // Whoever claims it at this moment goes on with it here.
    if (!this.#parked.take(tunnel)) return;
    this.#successor?.send({ id, claimant, ...carrier.describe(), downstream: leg.takeState() });
    carrier.leave();
    this.count('tunnel', 'handed_over');
  }

  /** Its upstream end may have gone before it: then that comes back. */
  #stay(tunnel: ServerTunnel, outcome: HandOverOutcome): void {
    const { upstream } = tunnel.carrier ?? {};
    this.#staying.add(tunnel);
    this.count('tunnel', outcome);
    tunnel.release();
    tunnel.leg.thaw();
    if (upstream?.isAway === true) void upstream.resume();
  }
}
