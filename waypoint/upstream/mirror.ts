import type { HostPort } from '#api/address.ts';
import type { Caller, RequestHead } from '../exchange.ts';
import { ownerOf, REQUEST_BYTES } from '../memory/costs.ts';
import type { Holder, Ledger } from '../memory/ledger.ts';
import type { Cluster } from '../model.ts';
import type { Attempt, AttemptHandlers, UpstreamRequest } from './attempt.ts';
import type { Balancer } from './balance.ts';
import type { BodyCopy } from './request-body.ts';
import { addressOf, protocolOf } from './target.ts';
import type { Upstream } from './upstream.ts';

/** Copies of requests under way at a time, in the process; more are left out. */
const MAX_MIRRORS = 1_000;
/** Bytes of a body that may wait for a mirror that is slow; then it is given up. */
const MAX_WAITING = 1024 * 1024;
/** How long one may take in all. */
const TIMEOUT_MS = 30_000;

/** Sends copies of requests, whose answers nobody sees. They are never waited for, and what goes wrong with them is theirs. */
export interface Mirrors {
  /** @returns what gets the body; undefined when there is no endpoint, or there are too many copies already */
  readonly send: (cluster: Cluster, request: UpstreamRequest, context: MirrorContext) => BodyCopy | undefined;
  readonly counts: () => { readonly active: number; readonly sent: number; readonly dropped: number };
}

export interface MirrorContext {
  readonly caller: Caller;
  /** For endpoints without a port. */
  readonly authority: HostPort;
  readonly hashKey: string | undefined;
  /** The request that is copied. */
  readonly downstream: Pick<RequestHead, 'protocol'>;
}

export function createMirrors(upstream: Upstream, balancer: Balancer, ledger: Ledger): Mirrors {
  let active = 0;
  let sent = 0;
  let dropped = 0;
  return {
    counts: () => ({ active, sent, dropped }),
    send: (cluster, request, { caller, authority, hashKey, downstream }) => {
      const endpoint = balancer.pick(cluster, { hashKey, exclude: NONE });
      if (endpoint === undefined || active >= MAX_MIRRORS) {
        dropped += 1;
        return undefined;
      }
      active += 1;
      sent += 1;
      const endTry = balancer.begin(cluster, endpoint);
      const copy = new MirrorCopy(ownerOf(caller), () => {
        active -= 1;
        endTry();
        ledger.delete(copy);
      });
      ledger.add(copy);
      const protocol = protocolOf(cluster, request, downstream);
      const target = { caller, endpoint, address: addressOf(endpoint, authority), cluster };
      copy.begin(upstream.send(protocol, target, request, copy.handlers));
      return copy;
    },
  };
}

const NONE: ReadonlySet<string> = new Set();

class MirrorCopy implements BodyCopy, Holder {
  readonly owner: string;
  readonly #onOver: () => void;
  readonly #timer: NodeJS.Timeout;
  #attempt: Attempt | undefined;
  #waiting = 0;
  #isOver = false;

  constructor(owner: string, onOver: () => void) {
    this.owner = owner;
    this.#onOver = onOver;
    this.#timer = setTimeout(() => this.#giveUp(), TIMEOUT_MS).unref();
  }

  get handlers(): AttemptHandlers {
    const over = (): void => this.#over();
    return {
      onInform: () => undefined,
      onHead: () => undefined,
      onData: () => undefined,
      onEnd: over,
      onUpgrade: (_status, _headers, tunnel) => {
        tunnel.abort();
        over();
      },
      onFailure: over,
      onDrain: () => {
        this.#waiting = 0;
      },
    };
  }

  begin(attempt: Attempt): void {
    this.#attempt = attempt;
  }

  write(chunk: Buffer): void {
    if (this.#isOver || this.#attempt === undefined) return;
    if (this.#attempt.write(chunk)) return;
    this.#waiting += chunk.length;
    if (this.#waiting > MAX_WAITING) this.#giveUp();
  }

  end(trailers: readonly string[]): void {
    if (!this.#isOver) this.#attempt?.end(trailers);
  }

  abort(): void {
    this.#giveUp();
  }

  held(): number {
    return REQUEST_BYTES + (this.#attempt?.held() ?? 0);
  }

  shed(): void {
    this.#giveUp();
  }

  #giveUp(): void {
    if (this.#isOver) return;
    this.#over();
    this.#attempt?.abort();
  }

  #over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#onOver();
  }
}
