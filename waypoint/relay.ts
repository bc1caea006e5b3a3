import { type Splice, type SpliceEnd, splice } from '#ztunnel/hbone/splice.ts';
import type { Downstream } from './exchange.ts';
import type { CarriedUse } from './hand-over/carried-tunnel.ts';
import { type ClientTunnel, clientTunnelOf } from './hand-over/client-tunnel.ts';
import type { Carrier, ServerTunnel } from './hand-over/server-tunnel.ts';
import type { LiveCall } from './live-calls.ts';
import { CONNECTION_BYTES, ownerOf } from './memory/costs.ts';
import type { RequestRecord, ResponseFlag } from './request-record.ts';
import type { ServeDeps } from './serve-deps.ts';
import { whyDenied } from './upstream/denial.ts';

/** A connection between two tunnels, as the process before this one left it. */
export interface AdoptedRelay {
  readonly downstream: Downstream;
  readonly tunnel: ServerTunnel;
  readonly client: ClientTunnel;
  /** What was known of it there. */
  readonly record: RequestRecord;
}

/** Goes on with a connection that the process before this one had: TCP, or a WebSocket. Its record says all of it, once. */
export function goOn(adopted: AdoptedRelay, deps: ServeDeps): void {
  const { downstream, tunnel, client, record } = adopted;
  const startedAt = performance.now();
  const flags: ResponseFlag[] = [...record.flags];
  let details = record.details;
  let cutFlag: ResponseFlag = 'LR';
  const call: LiveCall = {
    owner: ownerOf(downstream.caller),
    held: () => CONNECTION_BYTES + tunnel.leg.held() + client.leg.held(),
    shed: (why) => cut('OM', why),
    recheck: () => {
      const frontend = deps.config().frontends.named(downstream.frontend.name) ?? downstream.frontend;
      const { caller, authority } = downstream;
      const denied = frontend.refuse ?? whyDenied(deps.authorize(frontend, caller, undefined, authority));
      if (denied !== undefined) cut('LR', `no longer allowed: ${denied}`);
    },
  };
  const current = (): RequestRecord => {
    const { received, sent } = joined.bytes();
    return {
      ...record,
      flags,
      details,
      durationMs: record.durationMs + performance.now() - startedAt,
      bytesReceived: record.bytesReceived + received,
      bytesSent: record.bytesSent + sent,
    };
  };
  const noteEnd = (end: SpliceEnd): void => {
    deps.live.delete(call);
    if (end.kind !== 'complete') {
      details = end.reason;
      flags.push(end.kind === 'cut' ? cutFlag : end.side === 'upstream' ? 'UC' : 'DC');
    }
    deps.record(current());
  };
  const cut = (flag: ResponseFlag, why: string): void => {
    cutFlag = flag;
    joined.cut(why);
  };
  const joined: Splice = splice(tunnel.leg, client.leg, noteEnd);
  deps.live.add(call);
  tunnel.carrier = relayCarrier(downstream, client, {
    record: current,
    leave: () => {
      joined.release();
      deps.live.delete(call);
    },
  });
  call.recheck();
}

/** Lets a connection between two tunnels go to another process; undefined: it cannot. */
export function carrierOf(
  downstream: Downstream,
  upstream: object,
  relay: Parameters<typeof relayCarrier>[2],
): Carrier | undefined {
  const client = clientTunnelOf(upstream);
  return client && relayCarrier(downstream, client, relay);
}

function relayCarrier(
  { caller, authority, frontend }: Downstream,
  client: ClientTunnel,
  relay: {
    /** As it would be if it were over. */
    readonly record: () => RequestRecord;
    readonly leave: () => void;
  },
): Carrier {
  return {
    isReady: () => !client.leg.isOver,
    upstream: client,
    describe: () => {
      const { frontend: _, ...record } = relay.record();
      const { id, way } = client;
      const use: CarriedUse = { kind: 'relay', relay: { id, way, record, upstream: client.leg.takeState() } };
      return { caller, authority, frontend: frontend.name, use };
    },
    leave: relay.leave,
  };
}
