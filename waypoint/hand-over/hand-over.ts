import { type Claim, Parked } from '#ztunnel/hand-over/parked.ts';
import type { Connection } from '#ztunnel/hbone/connection.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';
import { ServerTunnel } from './server-tunnel.ts';

/** What has become of a tunnel that a restart met: of this waypoint, or of a ztunnel at one of its ends. */
export type HandOverOutcome = 'handed_over' | `drained_${string}` | `reset_${string}`;

export type TunnelKind = 'downstream' | 'upstream';

/** The tunnels of this process that can go on without one of the processes that they are made of. */
export class HandOver {
  readonly #parked: Parked<ServerTunnel>;
  readonly #tunnels = new Set<ServerTunnel>();
  readonly #counts = new Map<string, number>();

  constructor() {
    this.#parked = new Parked<ServerTunnel>({
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
    const tunnel = new ServerTunnel(stream, {
      id,
      claimant,
      onAway: (each, isRetiring) => {
        if (!isRetiring) this.#parked.park(each);
      },
      onStays: () => undefined,
    });
    this.#tunnels.add(tunnel);
    tunnel.leg.whenOver(() => this.#tunnels.delete(tunnel));
    tunnel.hold(session);
    return tunnel;
  }

  /** The tunnel that a CONNECT wants to take up; waits for it, if it is not there yet. */
  async claim(id: string, claimant: string): Promise<Claim<ServerTunnel>> {
    return await this.#parked.claim(id, claimant);
  }

  close(): void {
    this.#parked.close();
  }
}
