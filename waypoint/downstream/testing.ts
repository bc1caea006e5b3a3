import { once } from 'node:events';
import { connect } from 'node:net';
import type { HostPort } from '#api/address.ts';
import type { Identity } from '#certs/identity.ts';
import type { TemporaryAuthority } from '#certs/testing.ts';
import { eventually } from '#test/kit/eventually.ts';
import { connectHop } from '#ztunnel/hbone/client.ts';
import type { Connection } from '#ztunnel/hbone/connection.ts';
import type { Field } from '#ztunnel/hbone/hpack-tables.ts';
import type { Answer, TunnelStream } from '#ztunnel/hbone/stream.ts';
import { SETTINGS } from '#ztunnel/hbone/testing.ts';
import type { Exchange, HeaderList } from '../exchange.ts';
import { HandOver } from '../hand-over/hand-over.ts';
import type { Ledger } from '../memory/ledger.ts';
import { roomyLedger } from '../memory/testing.ts';
import type { Frontend, FrontendIndex } from '../model.ts';
import type { RequestRecord } from '../request-record.ts';
import type { TcpTunnel } from '../serve-tcp.ts';
import { TunnelDuplex } from '../tunnel-duplex.ts';
import { HboneListener } from './hbone-listener.ts';
import { DEFAULT_LIMITS, type DownstreamLimits } from './limits.ts';
import { type RefusedTunnel, Tunnels } from './tunnels.ts';

export const WAYPOINT: Identity = {
  trustDomain: 'cluster.local',
  namespace: 'pay',
  serviceAccount: 'waypoint',
};
export const WEB: Identity = { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'web' };

/** A frontend for each protocol, at 10.96.0.1 and up: `authorityOf('http')` is what to dial. */
const PROTOCOLS: readonly Frontend['protocol'][] = ['http1', 'http2', 'http', 'tcp', 'tls', 'detect'];

export function authorityOf(protocol: Frontend['protocol']): string {
  return `10.96.0.${PROTOCOLS.indexOf(protocol) + 1}:80`;
}

function frontends(): FrontendIndex {
  const all = new Map<string, Frontend>(
    PROTOCOLS.map((protocol) => [
      authorityOf(protocol),
      {
        name: `inbound-vip|80|${protocol}|ledger.pay.svc.cluster.local`,
        service: 'pay/ledger.pay.svc.cluster.local',
        port: 80,
        authorizations: [],
        protocol,
        tcp: [],
      },
    ]),
  );
  return {
    find: (host, port) => all.get(`${host}:${port}`),
    named: (name) => [...all.values()].find((frontend) => frontend.name === name),
    all: () => all.values(),
  };
}

export interface TestListener extends AsyncDisposable {
  readonly listener: HboneListener;
  readonly tunnels: Tunnels;
  readonly address: HostPort;
  /** Of requests that were refused before anybody saw them. */
  readonly records: RequestRecord[];
  readonly refused: RefusedTunnel[];
  readonly failures: string[];
  /** What {@link echo} has seen. */
  readonly exchanges: Exchange[];
  readonly tcp: TcpTunnel[];
  drain: () => void;
  /** Opens a session as that identity. */
  readonly connect: (identity?: Identity) => Promise<Connection>;
  /** Opens a tunnel on a session of its own. */
  readonly dial: (authority: string) => Promise<TunnelDuplex>;
}

/** Port 15008 with everything behind it but what answers requests, which is an echo. */
export async function listen(
  ca: TemporaryAuthority,
  options: {
    readonly limits?: Partial<DownstreamLimits>;
    readonly serveRequest?: (exchange: Exchange) => void;
    readonly ledger?: Ledger;
    readonly handOver?: HandOver;
  } = {},
): Promise<TestListener> {
  const [svid, clientSvid] = await Promise.all([ca.svid(WAYPOINT), ca.svid(WEB)]);
  const seen: Pick<TestListener, 'records' | 'refused' | 'failures' | 'exchanges' | 'tcp'> = {
    records: [],
    refused: [],
    failures: [],
    exchanges: [],
    tcp: [],
  };
  let isDraining = false;
  const ledger = options.ledger ?? roomyLedger();
  const handOver = options.handOver ?? new HandOver();
  const tunnels = new Tunnels({
    frontends,
    serveRequest: (exchange) => {
      seen.exchanges.push(exchange);
      (options.serveRequest ?? echo)(exchange);
    },
    serveTcp: (tunnel) => {
      seen.tcp.push(tunnel);
      const { leg } = tunnel;
      leg.start({
        onData: (bytes) => leg.write(bytes),
        onEnd: () => leg.end(),
        onDrain: () => undefined,
        onFinish: () => undefined,
        onAbort: () => undefined,
      });
    },
    onRecord: (record) => seen.records.push(record),
    onRefused: (refused) => seen.refused.push(refused),
    isDraining: () => isDraining,
    baggage: 'k8s.namespace.name=pay',
    limits: { ...DEFAULT_LIMITS, ...options.limits },
    ledger,
    handOver,
  });
  const listener = new HboneListener({
    listen: { ip: '127.0.0.1', port: 0 },
    tunnels,
    settings: SETTINGS,
    ledger,
    svid: () => svid,
    onFailure: ({ reason }) => seen.failures.push(reason),
    onShed: (limit) => seen.failures.push(limit),
  });
  const address = await listener.open();
  const connectAs = async (identity?: Identity): Promise<Connection> =>
    await connectHop({
      hop: address,
      svid: identity === undefined ? clientSvid : await ca.svid(identity),
      expected: [WAYPOINT],
      dial: ({ ip, port }) => connect({ host: ip, port }),
      settings: SETTINGS,
      timeoutMs: 5_000,
      onClose: () => undefined,
    });
  return {
    ...seen,
    listener,
    tunnels,
    address,
    drain: () => {
      isDraining = true;
      tunnels.drain();
      listener.drain();
    },
    connect: connectAs,
    dial: async (authority) => {
      const { stream, answer } = ask(await connectAs(), authority);
      const { status } = await answer;
      if (status !== '200') throw new Error(`CONNECT ${authority}: ${status}`);
      return new TunnelDuplex(stream);
    },
    [Symbol.asyncDispose]: async () => {
      tunnels[Symbol.dispose]();
      ledger[Symbol.dispose]();
      handOver.close();
      listener.close('the test is over');
      await listener.untilIdle();
    },
  };
}

/** Sends a CONNECT. */
export function ask(
  connection: Connection,
  authority: string,
  more: readonly Field[] = [],
): {
  readonly stream: TunnelStream;
  readonly answer: Promise<{ readonly status: string | undefined; readonly fields: readonly Field[] }>;
} {
  const { promise, resolve } = Promise.withResolvers<Answer>();
  const stream = connection.request([[':method', 'CONNECT'], [':authority', authority], ...more], resolve);
  const answer = promise.then((got) => {
    const fields = got.kind === 'answered' ? got.fields : [];
    return { fields, status: fields.find(([name]) => name === ':status')?.[1] };
  });
  return { stream, answer };
}

/** Answers 200 with what came: a line of the head, headers, then the body. */
export function echo(exchange: Exchange): void {
  const { head, body } = exchange;
  const lines = [`${head.method} ${head.authority} ${head.target}`];
  for (let at = 0; at < head.headers.length; at += 2)
    lines.push(`${head.headers[at]}: ${head.headers[at + 1]}`);
  const pieces: Buffer[] = [];
  const finish = (trailers: HeaderList): void => {
    const text = Buffer.concat([Buffer.from(`${lines.join('\n')}\n\n`), ...pieces]);
    exchange.respond(200, ['content-length', String(text.length)]);
    if (head.method !== 'HEAD') exchange.write(text);
    exchange.end(trailers);
  };
  if (body === undefined) finish([]);
  else body.start({ onData: (chunk) => pieces.push(chunk), onEnd: finish, onAbort: () => undefined });
}

/** Sends text as it is, and all that comes back until it ends, breaks, or `until` says enough. */
export async function talk(
  socket: TunnelDuplex,
  text: string | Buffer,
  until: (received: string) => boolean = () => false,
): Promise<{ readonly text: string; readonly ended: boolean; readonly reset: boolean }> {
  let received = '';
  const state = { ended: false, reset: false };
  socket.setEncoding('latin1');
  const onData = (piece: string): void => {
    received += piece;
  };
  socket.on('data', onData);
  socket.on('end', () => {
    state.ended = true;
  });
  socket.on('error', () => {
    state.reset = true;
  });
  socket.write(text, 'latin1');
  await eventually(
    'an answer',
    () => state.ended || state.reset || socket.destroyed || until(received),
    10_000,
  );
  socket.off('data', onData);
  return { text: received, ...state };
}

/** Ends a socket and waits until it is gone. */
export async function close(socket: TunnelDuplex): Promise<void> {
  socket.on('error', () => undefined);
  if (socket.destroyed) return;
  const closed = once(socket, 'close');
  socket.destroy();
  await closed;
}
