import type { Socket } from 'node:net';
import { canonicalIp } from './authority.ts';

/** TLS handshakes that may be under way with one server: in all, and from one address. */
export interface HandshakeLimits {
  readonly handshakes: number;
  readonly handshakesOfPeer: number;
}

export interface HandshakeGateOptions {
  readonly limits: HandshakeLimits;
  /** A client was reset. @param error for people, with its address */
  readonly onShed: (limit: 'peer-handshakes' | 'pod-handshakes', error: string) => void;
  /** A handshake is over, one way or the other. */
  readonly onLeave?: () => void;
}

/**
 * Who may be in a TLS handshake with a server. When there are as many as may be, one from an address with few takes the place of
 * the oldest from the address with the most: half-open handshakes keep out those who open them, and nobody else.
 */
export class HandshakeGate {
  readonly #options: HandshakeGateOptions;
  /** Oldest first, by the client's address. */
  readonly #underWay = new Map<string, Set<Socket>>();
  readonly #peers = new Map<Socket, string>();

  constructor(options: HandshakeGateOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#peers.size;
  }

  /** Whose handshakes are under way. */
  get sockets(): readonly Socket[] {
    return [...this.#peers.keys()];
  }

  /**
   * A client that was accepted wants to begin.
   * @returns whether it may; if not, it has been reset. It counts until {@link leave}, or until its socket has closed
   */
  enter(socket: Socket): boolean {
    if (socket.remoteAddress === undefined) {
      // Reset before it was accepted: with bytes left that nobody reads, it would not notice by itself.
      socket.destroy();
      return false;
    }
    const peer = canonicalIp(socket.remoteAddress);
    const own = this.#underWay.get(peer) ?? new Set();
    const limit = this.#limitFor(own.size);
    if (limit !== undefined) {
      this.#options.onShed(limit, `too many TLS handshakes under way, the last of ${peer}`);
      socket.resetAndDestroy();
      return false;
    }
    this.#underWay.set(peer, own.add(socket));
    this.#peers.set(socket, peer);
    socket.once('close', () => this.leave(socket));
    return true;
  }

  /** The handshake is over. More than once is harmless. @param socket the one that was accepted */
  leave(socket: Socket): void {
    const peer = this.#peers.get(socket);
    if (peer === undefined) return;
    this.#peers.delete(socket);
    const own = this.#underWay.get(peer);
    own?.delete(socket);
    if (own?.size === 0) this.#underWay.delete(peer);
    this.#options.onLeave?.();
  }

  /** What keeps out one whose address has so many; makes room for it, if that may be. */
  #limitFor(ownCount: number): 'peer-handshakes' | 'pod-handshakes' | undefined {
    const { handshakes, handshakesOfPeer } = this.#options.limits;
    if (ownCount >= handshakesOfPeer) return 'peer-handshakes';
    return this.size < handshakes || this.#makeRoom(ownCount) ? undefined : 'pod-handshakes';
  }

  #makeRoom(ownCount: number): boolean {
    let [most, count] = ['', 0];
    for (const [peer, { size }] of this.#underWay) if (size > count) [most, count] = [peer, size];
    const [oldest] = this.#underWay.get(most) ?? [];
    if (oldest === undefined || count <= ownCount + 1) return false;
    this.leave(oldest);
    const error = `an unfinished TLS handshake of ${most} made room for one of another client`;
    this.#options.onShed('pod-handshakes', error);
    oldest.resetAndDestroy();
    return true;
  }
}
