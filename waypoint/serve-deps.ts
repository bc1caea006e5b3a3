import type { HostPort } from '#api/address.ts';
import type { Identity } from '#certs/identity.ts';
import type { Verdict } from '#ztunnel/policy/verdict.ts';
import type { Caller } from './exchange.ts';
import { LiveCalls } from './live-calls.ts';
import type { Ledger } from './memory/ledger.ts';
import type { Frontend, WaypointConfig } from './model.ts';
import type { RequestRecord } from './request-record.ts';
import type { AuthorizedRequest } from './route/decide-request.ts';
import { SmoothWeights, type WeightOwner } from './route/weights.ts';
import { type Balancer, createBalancer } from './upstream/balance.ts';
import { createFaultCounts, type FaultCounts } from './upstream/fault-counts.ts';
import { createMirrors, type Mirrors } from './upstream/mirror.ts';
import type { Upstream } from './upstream/upstream.ts';

/** What serving needs from the rest of the waypoint. */
export interface ServeOptions {
  /** The newest. */
  readonly config: () => WaypointConfig;
  readonly upstream: Upstream;
  /** The waypoint's own, for applications; undefined: none yet. */
  readonly identity: () => Identity | undefined;
  /**
   * Whether a caller may make a request (undefined: a TCP connection) to what it dialled. Asked before anything is done for it.
   */
  readonly authorize: (
    frontend: Frontend,
    caller: Caller,
    request: AuthorizedRequest | undefined,
    authority: HostPort,
  ) => Verdict;
  /** Gets each request and connection, once, when it is over. */
  readonly record: (record: RequestRecord) => void;
  /** Gets each TCP connection when it is open (or has come to nothing), with what is known of it then. */
  readonly opened?: (record: RequestRecord) => void;
  /** Counts what is held for callers. */
  readonly ledger: Ledger;
  /** From 0 up to 1. Default: `Math.random`. */
  readonly random?: () => number;
}

/** What requests and connections are served with: state of the process that lives longer than they do. */
export interface ServeDeps extends Required<ServeOptions> {
  readonly weights: SmoothWeights;
  readonly balancer: Balancer;
  readonly faults: FaultCounts;
  readonly mirrors: Mirrors;
  readonly live: LiveCalls;
}

export function createServeDeps(options: ServeOptions): ServeDeps {
  const random = options.random ?? Math.random;
  const balancer = createBalancer(random);
  return {
    opened: () => undefined,
    ...options,
    random,
    balancer,
    weights: new SmoothWeights(random),
    faults: createFaultCounts(),
    mirrors: createMirrors(options.upstream, balancer, options.ledger),
    live: new LiveCalls(options.ledger),
  };
}

/**
 * To be called when there is another configuration: connections to endpoints that have left end when they are free, and what was
 * kept of routes and clusters that are gone goes. Requests in flight are left alone.
 */
export function keepOnlyConfigured(deps: ServeDeps, config: WaypointConfig): void {
  deps.balancer.keepOnly(config.clusters);
  deps.upstream.keepOnly([...config.clusters.values()].flatMap(({ endpoints }) => endpoints));
  deps.weights.retain(ownersOf(config));
}

function* ownersOf(config: WaypointConfig): Iterable<WeightOwner> {
  for (const table of config.routes.values())
    for (const { name, origin } of table.routes) yield { table: table.name, name, origin };
  for (const frontend of config.frontends.all())
    for (const [place, { origin }] of frontend.tcp.entries())
      yield { table: frontend.name, name: `tcp ${place}`, origin };
}
