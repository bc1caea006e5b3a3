import type { Socket } from 'node:net';
import { canonicalIp } from './authority.ts';

/** TLS handshakes that may be under way with one server: in all, and from one address. */
export interface HandshakeLimits {
  readonly handshakes: number;
  readonly handshakesOfPeer: number;
}

export interface HandshakeGateOptions {
  readonly limits: HandshakeLimits;
  /** How long {@link HandshakeGate.enter} waits. Default 2000 ms, well below what callers wait for. */
  readonly longestWaitMs?: number;
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
  /** Those who wait for a place, longest first, and what tells each that it has one. */
  readonly #waiting = new Map<Socket, { readonly peer: string; readonly begin: () => void }>();

  constructor(options: HandshakeGateOptions) {
    this.#options = options;
  }

  /** Handshakes that are under way, or wait to be. */
  get size(): number {
    return this.#peers.size + this.#waiting.size;
  }

  /** Whose handshakes are under way, or wait to be. */
  get sockets(): readonly Socket[] {
    return [...this.#peers.keys(), ...this.#waiting.keys()];
  }

  /**
   * A client that was accepted wants to begin. Where only the places are taken it waits for one: many may come at the same moment.
   * @returns whether it may; if not, it has been reset, or has left. It counts until {@link leave}, or until its socket has closed
   */
  async enter(socket: Socket): Promise<boolean> {
    const peer = this.#peerOf(socket);
    if (peer === undefined) return false;
    const limit = this.#limitFor(peer);
    if (limit === undefined) this.#begin(socket, peer);
    const { limits, longestWaitMs = 2000 } = this.#options;
    if (limit === 'pod-handshakes' && this.#waiting.size < limits.handshakes)
      return await this.#turn(socket, peer, longestWaitMs);
    if (limit !== undefined) this.#refuse(socket, limit, peer);
    return limit === undefined;
  }

  #turn(socket: Socket, peer: string, longestWaitMs: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const end = (mayBegin: boolean): void => {
      clearTimeout(timer);
      if (!this.#waiting.delete(socket)) return;
      if (mayBegin) this.#begin(socket, peer);
      else this.#options.onLeave?.();
      resolve(mayBegin);
    };
    const timer = setTimeout(() => {
      end(false);
      this.#refuse(socket, 'pod-handshakes', peer);
    }, longestWaitMs);
    this.#waiting.set(socket, { peer, begin: () => end(true) });
    socket.once('close', () => end(false));
    return promise;
  }

  /** The handshake is over. More than once is harmless. @param socket the one that was accepted */
  leave(socket: Socket): void {
    if (!this.#remove(socket)) return;
    const [first] = this.#waiting.values();
    first?.begin();
  }

  #remove(socket: Socket): boolean {
    const peer = this.#peers.get(socket);
    if (peer === undefined) return false;
    this.#peers.delete(socket);
    const own = this.#underWay.get(peer);
    own?.delete(socket);
    if (own?.size === 0) this.#underWay.delete(peer);
    this.#options.onLeave?.();
    return true;
  }

  #peerOf(socket: Socket): string | undefined {
    if (socket.remoteAddress !== undefined) return canonicalIp(socket.remoteAddress);
    // Reset before it was accepted: with bytes left that nobody reads, it would not notice by itself.
    socket.destroy();
    return undefined;
  }

  #begin(socket: Socket, peer: string): void {
    const own = this.#underWay.get(peer) ?? new Set();
    this.#underWay.set(peer, own.add(socket));
    this.#peers.set(socket, peer);
    socket.once('close', () => this.leave(socket));
  }

  #refuse(socket: Socket, limit: 'peer-handshakes' | 'pod-handshakes', peer: string): void {
    this.#options.onShed(limit, `too many TLS handshakes under way, the last of ${peer}`);
    socket.resetAndDestroy();
  }

  /** What keeps out one of that address; makes room for it, if that may be. */
  #limitFor(peer: string): 'peer-handshakes' | 'pod-handshakes' | undefined {
    const { handshakes, handshakesOfPeer } = this.#options.limits;
    const underWay = this.#underWay.get(peer)?.size ?? 0;
    const waiting = [...this.#waiting.values()].filter((one) => one.peer === peer).length;
    if (underWay + waiting >= handshakesOfPeer) return 'peer-handshakes';
    return this.#peers.size < handshakes || this.#makeRoom(underWay) ? undefined : 'pod-handshakes';
  }

  #makeRoom(ownCount: number): boolean {
    let [most, count] = ['', 0];
    for (const [peer, { size }] of this.#underWay) if (size > count) [most, count] = [peer, size];
    const [oldest] = this.#underWay.get(most) ?? [];
    if (oldest === undefined || count <= ownCount + 1) return false;
    this.#remove(oldest);
    const error = `an unfinished TLS handshake of ${most} made room for one of another client`;
    this.#options.onShed('pod-handshakes', error);
    oldest.resetAndDestroy();
    return true;
  }
}
