import type { HostPort } from '#api/address.ts';
import type { Identity } from '#certs/identity.ts';
import type { Svid } from '#certs/svid.ts';
import type { ConnectionSettings } from '#ztunnel/hbone/connection.ts';
import type { Verdict } from '#ztunnel/policy/verdict.ts';
import type { Caller, Downstream, Exchange } from './exchange.ts';
import type { CarriedRelay } from './hand-over/carried-tunnel.ts';
import type { HandOver } from './hand-over/hand-over.ts';
import type { ServerTunnel } from './hand-over/server-tunnel.ts';
import type { Ledger } from './memory/ledger.ts';
import type { Frontend, WaypointConfig } from './model.ts';
import { goOn } from './relay.ts';
import type { RequestRecord } from './request-record.ts';
import { createServeDeps, keepOnlyConfigured } from './serve-deps.ts';
import { serveRequest } from './serve-request.ts';
import { serveTcp, type TcpTunnel } from './serve-tcp.ts';
import { createUpstream, type UpstreamDeps } from './upstream/upstream.ts';

export interface ServingOptions {
  /** The newest. */
  readonly config: () => WaypointConfig;
  readonly authorize: (frontend: Frontend, caller: Caller, authority: HostPort) => Verdict;
  readonly identity: Identity;
  readonly svid: () => Svid | undefined;
  readonly ledger: Ledger;
  readonly handOver: HandOver;
  readonly hbone: ConnectionSettings;
  readonly onRecord: (record: RequestRecord) => void;
  /** Gets each TCP connection when it is open, or has come to nothing. */
  readonly onOpened: (record: RequestRecord) => void;
  /** How applications are reached; default: on the network. */
  readonly sockets?: Pick<UpstreamDeps, 'dial' | 'hopOf'>;
}

/** Answers requests and carries connections: what is behind the tunnels. Closed by whoever made it. */
export interface Serving {
  readonly serveRequest: (exchange: Exchange) => void;
  readonly serveTcp: (tunnel: TcpTunnel) => void;
  /** Another configuration is in force. */
  readonly follow: (config: WaypointConfig) => void;
  /** Policies, or whom they are for, have changed: what is under way and is denied now ends. */
  readonly recheck: () => void;
  /** Connections to applications, by kind. */
  readonly connections: () => { readonly sessions: number; readonly http1: number; readonly http2: number };
  readonly mirrors: () => { readonly active: number; readonly sent: number; readonly dropped: number };
  /** Goes on with what the process before this one had between two tunnels. */
  readonly goOn: (downstream: Downstream, tunnel: ServerTunnel, relay: CarriedRelay) => void;
  readonly close: () => void;
}

export function createServing(options: ServingOptions): Serving {
  const { config, authorize, identity, svid, ledger, handOver, hbone, onRecord, onOpened, sockets } = options;
  const upstream = createUpstream({
    svid,
    settings: hbone,
    onBytes: (bytes) => ledger.note(bytes),
    handOver,
    ...sockets,
  });
  const deps = createServeDeps({
    config,
    upstream,
    ledger,
    identity: () => identity,
    authorize: (frontend, caller, _request, authority) => authorize(frontend, caller, authority),
    record: onRecord,
    opened: onOpened,
  });
  return {
    serveRequest: (exchange) => serveRequest(exchange, deps),
    serveTcp: (tunnel) => {
      serveTcp(tunnel, deps).catch(() => tunnel.leg.abort());
    },
    follow: (newest) => keepOnlyConfigured(deps, newest),
    recheck: () => deps.live.recheck(),
    connections: () => upstream.size(),
    mirrors: () => deps.mirrors.counts(),
    goOn: (downstream, tunnel, relay) => {
      const client = upstream.adopt(relay);
      goOn({ downstream, tunnel, client, record: { ...relay.record, frontend: downstream.frontend } }, deps);
      void client.resume();
    },
    close: () => upstream.close(),
  };
}
