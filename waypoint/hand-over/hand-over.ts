import { type Claim, Parked, type ParkedOptions } from '#ztunnel/hand-over/parked.ts';
import type { Connection } from '#ztunnel/hbone/connection.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';
import type { CarriedTunnel } from './carried-tunnel.ts';
import type { ClientTunnel } from './client-tunnel.ts';
import { ServerTunnel } from './server-tunnel.ts';

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

/** What retires with a waypoint. */
export interface RetiringSessions {
  /** Has the tunnels to destinations handed over; resolves when it is known of each what becomes of it. */
  readonly retireUpstream: () => Promise<void>;
  /** Callers' sessions. */
  readonly sessions: () => readonly Connection[];
}

/** The tunnels of this process that can go on without one of the processes that they are made of. */
export class HandOver {
  readonly #parked: Parked<ServerTunnel>;
  readonly #tunnels = new Set<ServerTunnel>();
  readonly #clients = new Set<ClientTunnel>();
  readonly #counts = new Map<string, number>();
  #successor: Successor | undefined;
  #isRetiring = false;

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
    // One that comes while this process retires may go when it is idle.
    if (this.#isRetiring) tunnel.attachLater(session);
    else tunnel.hold(session);
    return tunnel;
  }

  /** A tunnel of the process before this one: it waits for its caller's ztunnel to take it up. */
  adopt({ id, claimant, downstream }: CarriedTunnel): ServerTunnel {
    const tunnel = this.#open(downstream, id, claimant);
    this.#parked.park(tunnel);
    return tunnel;
  }

  /** A tunnel to a destination, until it is over. */
  addClient(tunnel: ClientTunnel): void {
    this.#clients.add(tunnel);
    tunnel.leg.whenOver(() => this.#clients.delete(tunnel));
  }

  /** Who claimed it has gone before it came; it waits for whoever asks again. */
  putBack(tunnel: ServerTunnel): void {
    this.#parked.park(tunnel);
  }

  /** The tunnel that a CONNECT wants to take up; waits for it, if it is not there yet. */
  async claim(id: string, claimant: string): Promise<Claim<ServerTunnel>> {
    return this.#parked.claim(id, claimant);
  }

  /** Whether a tunnel need not end when this process does. */
  mayOutlive(tunnel: ServerTunnel | undefined): boolean {
    return tunnel?.isMovable === true && this.#successor?.isThere() === true;
  }

  /**
   * Hands over what can be, now and, of HTTP/1.1 that is busy, later. To be called when callers open no more tunnels.
   * @returns when all that could be has gone
   */
  async retire(successor: Successor, { retireUpstream, sessions }: RetiringSessions): Promise<void> {
    this.#successor = successor;
    this.#isRetiring = true;
    const going = [...this.#tunnels].filter((tunnel) => this.#prepare(tunnel));
    const upstreams = new Set(going.map(({ carrier }) => carrier?.upstream));
    for (const client of this.#clients) if (!upstreams.has(client)) client.release();
    await retireUpstream();
    for (const tunnel of going) {
      const { upstream } = tunnel.carrier ?? {};
      if (upstream === undefined || upstream.isAway) continue;
      tunnel.release();
      tunnel.leg.thaw();
      this.count('tunnel', 'drained_upstream_stays');
    }
    await Promise.all(sessions().map(({ handOver }) => handOver.retire()));
  }

  close(): void {
    this.#parked.close();
  }

  #open(from: ConstructorParameters<typeof ServerTunnel>[0], id: string, claimant: string): ServerTunnel {
    const tunnel = new ServerTunnel(from, {
      id,
      claimant,
      onAway: (each, isRetiring) => {
        if (isRetiring) this.#send(each);
        else this.#parked.park(each);
      },
      onStays: (each) => this.#stay(each),
      onReady: (each) => {
        if (this.#isRetiring && this.mayOutlive(each) && each.carrier?.upstream === undefined) {
          each.leg.freeze();
          each.holdAgain();
        }
      },
    });
    this.#tunnels.add(tunnel);
    tunnel.leg.whenOver(() => this.#tunnels.delete(tunnel));
    return tunnel;
  }

  /** Whether it goes; what does not ends here, and is not to be disturbed. */
  #prepare(tunnel: ServerTunnel): boolean {
    const isReady = tunnel.carrier?.isReady() === true && this.mayOutlive(tunnel);
    if (isReady) tunnel.leg.freeze();
    else tunnel.release();
    return isReady;
  }

  #send(tunnel: ServerTunnel): void {
    const { carrier, id, claimant, leg } = tunnel;
    if (carrier === undefined || this.#successor?.isThere() !== true) {
      this.count('tunnel', 'reset_no_successor');
      leg.lose('the next waypoint has gone');
      return;
    }
    const described = carrier.describe();
    this.#successor.send({ id, claimant, ...described, downstream: leg.takeState() });
    carrier.leave();
    this.count('tunnel', 'handed_over');
  }

  /** Its upstream end may have gone before it: then that comes back. */
  #stay(tunnel: ServerTunnel): void {
    const { upstream } = tunnel.carrier ?? {};
    if (!this.#isRetiring) return;
    this.count('tunnel', 'drained_downstream_stays');
    if (upstream?.isAway === true) void upstream.resume();
  }
}
