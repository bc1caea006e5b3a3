import type { PodLimits } from './limits.ts';

/** A handshake that is under way. */
export interface Handshake {
  /** It is over, one way or the other. More than once is harmless. */
  readonly leave: () => void;
}

/** Whether a handshake may begin; if not, which limit says no. */
export type Entry =
  | { readonly kind: 'entered'; readonly handshake: Handshake }
  | { readonly kind: 'refused'; readonly limit: 'peer-handshakes' | 'pod-handshakes' };

/**
 * Who may be in a TLS handshake with a pod. When there are as many as may be, one from an address with few takes the place of the
 * oldest from the address with the most: half-open handshakes keep out those who open them, and nobody else.
 */
export class HandshakeGate {
  readonly #limits: Pick<PodLimits, 'handshakes' | 'handshakesOfPeer'>;
  /** What drops each handshake, oldest first, by the client's address. */
  readonly #underWay = new Map<string, Set<() => void>>();
  #size = 0;

  constructor(limits: Pick<PodLimits, 'handshakes' | 'handshakesOfPeer'>) {
    this.#limits = limits;
  }

  get size(): number {
    return this.#size;
  }

  /**
   * A client wants to begin.
   * @param drop called when it has to make room for another; it has left then
   */
  enter(peer: string, drop: () => void): Entry {
    const own = this.#underWay.get(peer) ?? new Set();
    if (own.size >= this.#limits.handshakesOfPeer) return { kind: 'refused', limit: 'peer-handshakes' };
    if (this.#size >= this.#limits.handshakes && !this.#makeRoom(own.size)) {
      return { kind: 'refused', limit: 'pod-handshakes' };
    }
    this.#underWay.set(peer, own);
    own.add(drop);
    this.#size += 1;
    return { kind: 'entered', handshake: { leave: () => this.#leave(peer, drop) } };
  }

  #leave(peer: string, drop: () => void): void {
    const own = this.#underWay.get(peer);
    if (own?.delete(drop) !== true) return;
    this.#size -= 1;
    if (own.size === 0) this.#underWay.delete(peer);
  }

  #makeRoom(ownCount: number): boolean {
    let [most, count] = ['', 0];
    for (const [peer, { size }] of this.#underWay) if (size > count) [most, count] = [peer, size];
    const [oldest] = this.#underWay.get(most) ?? [];
    if (oldest === undefined || count <= ownCount + 1) return false;
    this.#leave(most, oldest);
    oldest();
    return true;
  }
}
