import type { Endpoint } from '../model.ts';
import type { TunnelLeg } from '../tunnel-duplex.ts';
import type { Attempt, AttemptHandlers, UpstreamRequest } from './attempt.ts';
import { Http1Pool, type PoolLimits } from './http1-pool.ts';
import { Http2Pool } from './http2-pool.ts';
import { keyOf, keyOfEndpoint, type UpstreamTarget } from './target.ts';
import { asLeg, createWires, type WireDeps, type Wires } from './wire.ts';

export interface UpstreamDeps extends WireDeps {
  readonly limits?: Partial<PoolLimits>;
}

/** Connections from this waypoint to applications. One carries requests of one caller to one endpoint only. */
export interface Upstream {
  /** Sends a request once. */
  readonly send: (
    protocol: 'http1' | 'http2',
    target: UpstreamTarget,
    request: UpstreamRequest,
    handlers: AttemptHandlers,
  ) => Attempt;
  /**
   * Opens a connection for bytes; the receiver owns it.
   * @throws WireError
   */
  readonly openLeg: (target: UpstreamTarget, signal: AbortSignal) => Promise<TunnelLeg>;
  /** See {@link Wires}. */
  readonly adopt: Wires['adopt'];
  /** The endpoints that there are now: connections to others end when they are free. */
  readonly keepOnly: (endpoints: Iterable<Endpoint>) => void;
  readonly size: () => { readonly sessions: number; readonly http1: number; readonly http2: number };
  /** Closes what is free, and takes the rest back when it is free. */
  readonly drain: () => void;
  /** Closes everything. */
  readonly close: () => void;
}

/**
 * Envoy's default is 1024 connections a cluster; here it is for one caller and endpoint. Applications close what they have not
 * heard of for a while, most of them after a minute or more; when they say otherwise (`keep-alive: timeout=5`), it is heeded.
 */
const LIMITS: PoolLimits = { maxConnections: 1024, maxPending: 1024, idleMs: 55_000, stillMs: 1_000 };
const SWEEP_MS = 1_000;

interface Group {
  readonly endpointKey: string;
  readonly http1: Http1Pool;
  readonly http2: Http2Pool;
}

export function createUpstream(deps: UpstreamDeps): Upstream {
  const wires = createWires(deps);
  const limits: PoolLimits = { ...LIMITS, ...deps.limits };
  const groups = new Map<string, Group>();
  /** They take no more requests, and still serve some. */
  const leaving = new Set<Group>();
  const all = (): Group[] => [...groups.values(), ...leaving];
  const groupOf = (target: UpstreamTarget): Group => {
    const key = keyOf(target);
    const known = groups.get(key);
    if (known !== undefined) return known;
    const group = {
      endpointKey: keyOfEndpoint(target.endpoint),
      http1: new Http1Pool(wires, limits),
      http2: new Http2Pool(wires, limits),
    };
    groups.set(key, group);
    return group;
  };
  const forgetEmpty = (): void => {
    for (const [key, group] of groups) if (isEmpty(group)) groups.delete(key);
    for (const group of leaving) if (isEmpty(group)) leaving.delete(group);
  };
  const sweep = (): void => {
    const now = performance.now();
    for (const { http1, http2 } of groups.values()) {
      http1.sweep(now);
      http2.sweep(now);
    }
    forgetEmpty();
  };
  const sweeper = setInterval(sweep, Math.min(SWEEP_MS, limits.idleMs)).unref();
  const drain = (isLeaving: (group: Group) => boolean): void => {
    for (const [key, group] of groups) {
      if (!isLeaving(group)) continue;
      group.http1.drain();
      group.http2.drain();
      // What comes to be asked for again begins anew.
      groups.delete(key);
      if (!isEmpty(group)) leaving.add(group);
    }
  };
  return {
    send: (protocol, target, request, handlers) => groupOf(target)[protocol].send(target, request, handlers),
    openLeg: async (target, signal) => asLeg(await wires.open(target, [], signal)),
    adopt: (relay) => wires.adopt(relay),
    keepOnly: (endpoints) => {
      const kept = new Set<string>();
      for (const endpoint of endpoints) kept.add(keyOfEndpoint(endpoint));
      drain(({ endpointKey }) => !kept.has(endpointKey));
    },
    size: () => {
      let http1 = 0;
      let http2 = 0;
      for (const group of all()) {
        http1 += group.http1.size;
        http2 += group.http2.size;
      }
      return { sessions: wires.sessions(), http1, http2 };
    },
    drain: () => drain(() => true),
    close: () => {
      clearInterval(sweeper);
      for (const { http1, http2 } of all()) {
        http1.close('the waypoint stops');
        http2.close('the waypoint stops');
      }
      wires.close();
    },
  };
}

function isEmpty({ http1, http2 }: Group): boolean {
  return http1.isEmpty && http2.isEmpty;
}
