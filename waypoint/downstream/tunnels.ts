import { formatHostPort, type HostPort } from '#api/address.ts';
import { CONNECTION_ID_HEADER, fieldOf, parseConnectionId, RESUME_HEADER } from '#ztunnel/hbone/headers.ts';
import type { Field } from '#ztunnel/hbone/hpack-tables.ts';
import type { ServerSession } from '#ztunnel/hbone/server.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';
import type { Caller, Downstream, Exchange } from '../exchange.ts';
import type { HandOver } from '../hand-over/hand-over.ts';
import type { Carrier, ServerTunnel } from '../hand-over/server-tunnel.ts';
import { ownerOf } from '../memory/costs.ts';
import type { Ledger } from '../memory/ledger.ts';
import type { FrontendIndex } from '../model.ts';
import type { RequestRecord } from '../request-record.ts';
import type { TcpTunnel } from '../serve-tcp.ts';
import type { TunnelLeg } from '../tunnel-duplex.ts';
import { readClientHello } from './client-hello.ts';
import { detectProtocol } from './detect.ts';
import { createHttp1Tunnels, type Http1Tunnels } from './http1-server.ts';
import { createHttp2Tunnels, type Http2Tunnels } from './http2-server.ts';
import { type DownstreamLimits, Watch } from './limits.ts';
import { type Peek, PeekedLeg } from './peeked-leg.ts';
import { callerOf, decideTunnel } from './tunnel-request.ts';

/** A CONNECT that led nowhere. */
export interface RefusedTunnel {
  readonly caller: Caller;
  readonly authority: string;
  readonly status: number;
  readonly reason: string;
}

export interface TunnelsOptions {
  /** The newest. */
  readonly frontends: () => FrontendIndex;
  readonly serveRequest: (exchange: Exchange) => void;
  readonly serveTcp: (tunnel: TcpTunnel) => void;
  readonly onRecord: (record: RequestRecord) => void;
  readonly onRefused: (refused: RefusedTunnel) => void;
  readonly isDraining: () => boolean;
  /** What the waypoint says of itself in its 200. */
  readonly baggage: string;
  readonly limits: DownstreamLimits;
  readonly ledger: Ledger;
  readonly handOver: HandOver;
}

/** Whose a tunnel is, and what for. */
type AdoptedPlace = Pick<Downstream, 'caller' | 'frontend' | 'authority'>;

/** A CONNECT for a tunnel that is there, or on its way here. */
interface TakeUp {
  readonly connection: ServerSession['connection'];
  readonly stream: TunnelStream;
  readonly caller: Caller;
  readonly claimant: string;
  readonly id: string;
}

/** How often what is open is looked at. */
const LOOK_MS = 1_000;
/** All that is needed to tell HTTP from the rest. */
const MAX_DETECT_BYTES = 64;

/** Serves CONNECTs: finds what they are for, and who speaks what is inside. */
export class Tunnels implements Disposable {
  readonly #options: TunnelsOptions;
  readonly #watch: Watch;
  readonly #http1: Http1Tunnels;
  readonly #http2: Http2Tunnels;

  constructor(options: TunnelsOptions) {
    const { limits, ledger } = options;
    this.#options = options;
    this.#watch = new Watch(Math.min(LOOK_MS, limits.headMs / 4, limits.requestIdleMs / 4));
    const { serveRequest, onRecord } = options;
    const http = { limits, watch: this.#watch, ledger, serveRequest, onRecord };
    this.#http1 = createHttp1Tunnels(http);
    this.#http2 = createHttp2Tunnels(http);
  }

  /** Answers a CONNECT and takes its stream. @param address the caller's end of the TCP connection */
  serve(
    { connection, peer }: ServerSession,
    stream: TunnelStream,
    fields: readonly Field[],
    address: HostPort,
  ): void {
    const { frontends, onRefused, isDraining, baggage, handOver } = this.#options;
    const caller = callerOf(peer, address, fields);
    const decision = decideTunnel(frontends(), fields, peer);
    if (decision.kind === 'refused') {
      connection.respond(stream, [[':status', decision.status]], true);
      const { authority, reason } = decision;
      onRefused({ caller, authority, status: Number(decision.status), reason });
      return;
    }
    const { frontend, authority } = decision;
    const claimant = `${ownerOf(caller)} ${formatHostPort(authority)}`;
    const resumed = fieldOf(fields, RESUME_HEADER);
    if (resumed !== undefined) {
      void this.#takeUp({ connection, stream, caller, claimant, id: parseConnectionId(resumed) ?? '' });
      return;
    }
    const id = caller.connectionId;
    accept(connection, stream, baggage, id);
    const tunnel = id === undefined ? undefined : handOver.accept(connection, stream, id, claimant);
    const leg = tunnel?.leg ?? stream;
    this.#serveTunnel(leg, {
      ...{ caller, frontend, authority, tunnel },
      isDraining: () => isDraining() && !handOver.mayOutlive(tunnel),
    });
  }

  /**
   * Goes on with a tunnel that the process before this one had, in which no request was under way.
   * @param isHttp1 HTTP/1.1 has been spoken in it
   */
  adopt(tunnel: ServerTunnel, { caller, frontend, authority }: AdoptedPlace, isHttp1: boolean): void {
    const { isDraining, handOver } = this.#options;
    const downstream: Downstream = {
      ...{ caller, frontend, authority, tunnel },
      isDraining: () => isDraining() && !handOver.mayOutlive(tunnel),
    };
    if (!isHttp1) {
      this.#serveTunnel(tunnel.leg, downstream);
      return;
    }
    this.#awaitFirst(downstream, 'http1');
    this.#peek(tunnel.leg, downstream, {
      decide: (bytes, isLast) => (bytes.length > 0 || isLast ? 'http1' : undefined),
    });
  }

  /** Until the first byte it may go to another process, which then waits for that. */
  #awaitFirst({ caller, authority, frontend, tunnel }: Downstream, kind: 'fresh' | 'http1'): void {
    if (tunnel === undefined) return;
    const carrier: Carrier = {
      isReady: () => tunnel.leg.isUntouched,
      describe: () => ({ caller, authority, frontend: frontend.name, use: { kind } }),
      leave: () => undefined,
    };
    tunnel.carrier = carrier;
  }

  /** Goes on with a tunnel that another session had carried. Never rejects. */
  async #takeUp({ connection, stream, caller, claimant, id }: TakeUp): Promise<void> {
    const { handOver, baggage, onRefused } = this.#options;
    const claim = await handOver.claim(id, claimant);
    if (claim.kind === 'claimed' && stream.isOver) {
      handOver.putBack(claim.connection);
      return;
    }
    if (claim.kind === 'claimed') {
      accept(connection, stream, baggage, id);
      handOver.attach(claim.connection, connection, stream);
      handOver.count('downstream', 'handed_over');
      return;
    }
    if (claim.kind === 'moved') {
      // Not looked at: it may be asked again, where the next waypoint answers.
      stream.abort('REFUSED_STREAM');
      return;
    }
    const status = claim.kind === 'refused' ? '401' : '404';
    connection.respond(stream, [[':status', status]], true);
    onRefused({ caller, authority: '', status: Number(status), reason: `tunnel ${id} cannot be taken up` });
  }

  /** Asks clients of HTTP/2 for no more requests; those of HTTP/1.1 are told with their next answer. */
  drain(): void {
    this.#http2.drain();
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
  }

  #serveTunnel(leg: TunnelLeg, downstream: Downstream): void {
    const { protocol } = downstream.frontend;
    if (protocol.startsWith('http')) this.#awaitFirst(downstream, 'fresh');
    switch (protocol) {
      case 'tcp':
        this.#options.serveTcp({ downstream, leg });
        break;
      case 'tls':
        this.#peekServerName(leg, downstream);
        break;
      case 'http1':
      case 'http2':
        // A connection may be opened in stock: nothing is set up, and no clock runs, before its first byte.
        this.#peek(leg, downstream, {
          decide: (bytes, isLast) => (bytes.length > 0 || isLast ? protocol : undefined),
        });
        break;
      case 'http':
        this.#peek(leg, downstream, {
          decide: (bytes, isLast) => {
            const detected = detectProtocol(bytes);
            if (detected === undefined) return isLast ? 'http1' : undefined;
            return detected === 'http2' ? 'http2' : 'http1';
          },
        });
        break;
      case 'detect':
        this.#peek(leg, downstream, {
          decide: (bytes, isLast) =>
            detectProtocol(bytes) ?? (isLast || bytes.length > MAX_DETECT_BYTES ? 'tcp' : undefined),
          timeout: { ms: this.#options.limits.detectMs, result: 'tcp' },
        });
    }
  }

  #peek(
    leg: TunnelLeg,
    downstream: Downstream,
    peek: Pick<Peek<'http1' | 'http2' | 'tcp'>, 'decide' | 'timeout'>,
  ): void {
    PeekedLeg.open<'http1' | 'http2' | 'tcp'>(leg, {
      ...peek,
      onDecided: (protocol, peeked) => {
        if (downstream.tunnel !== undefined) downstream.tunnel.carrier = undefined;
        if (protocol === 'http1') this.#http1.accept(peeked, downstream);
        else if (protocol === 'http2') this.#http2.accept(peeked, downstream);
        else this.#options.serveTcp({ downstream, leg: peeked });
      },
      onAbort: () => undefined,
    });
  }

  #peekServerName(leg: TunnelLeg, downstream: Downstream): void {
    const { limits, serveTcp } = this.#options;
    PeekedLeg.open<{ readonly serverName?: string | undefined }>(leg, {
      decide: (bytes, isLast) => {
        const check = readClientHello(bytes);
        if (check.kind === 'more') return isLast ? {} : undefined;
        return check.kind === 'hello' ? { serverName: check.serverName } : {};
      },
      onDecided: ({ serverName }, peeked) =>
        serveTcp({ downstream, leg: peeked, ...(serverName !== undefined && { serverName }) }),
      onAbort: () => undefined,
      timeout: { ms: limits.clientHelloMs, result: {} },
    });
  }
}

/** @param id said back: the tunnel can be handed over */
function accept(
  connection: ServerSession['connection'],
  stream: TunnelStream,
  baggage: string,
  id: string | undefined,
): void {
  const fields: Field[] = [
    [':status', '200'],
    ['baggage', baggage],
  ];
  if (id !== undefined) fields.push([CONNECTION_ID_HEADER, id]);
  connection.respond(stream, fields, false);
}
