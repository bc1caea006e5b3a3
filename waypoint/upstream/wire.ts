import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { checkServerIdentity, connect as connectTls, type PeerCertificate, type TLSSocket } from 'node:tls';
import { formatHostPort, type HostPort } from '#api/address.ts';
import type { Svid } from '#certs/svid.ts';
import { connectHop } from '#ztunnel/hbone/client.ts';
import type { ConnectionSettings } from '#ztunnel/hbone/connection.ts';
import { HboneError } from '#ztunnel/hbone/error.ts';
import { CONNECTION_ID_HEADER, fieldOf, newConnectionId, RESUME_HEADER } from '#ztunnel/hbone/headers.ts';
import type { Field } from '#ztunnel/hbone/hpack-tables.ts';
import { askPatiently, type OpenTunnel, Pool, type PoolTarget } from '#ztunnel/hbone/pool.ts';
import { SocketLeg } from '#ztunnel/hbone/socket-leg.ts';
import type { TunnelStream } from '#ztunnel/hbone/stream.ts';
import type { CarriedRelay, TunnelWay } from '../hand-over/carried-tunnel.ts';
import { ClientTunnel, canMove } from '../hand-over/client-tunnel.ts';
import type { HandOver } from '../hand-over/hand-over.ts';
import type { LegState } from '../hand-over/lasting-leg.ts';
import type { BackendTls, Endpoint } from '../model.ts';
import { timerMs } from '../timer.ts';
import { TunnelDuplex, type TunnelLeg } from '../tunnel-duplex.ts';
import type { AttemptFailure } from './attempt.ts';
import { connectFields } from './connect-fields.ts';
import { DuplexLeg } from './duplex-leg.ts';
import type { UpstreamTarget } from './target.ts';

/** Port on which a ztunnel serves HBONE. */
const HBONE_PORT = 15_008;
/** Fact sheet ambient-wire.md, 1.8. */
const MAX_STREAMS = 100;
const SESSION_IDLE_MS = 300_000;
/** What a ztunnel answers to callers that its policies deny. */
const DENIED = '401';

export interface WireDeps {
  /** The waypoint's own, as it is now; undefined: it has none yet. */
  readonly svid: () => Svid | undefined;
  readonly settings: ConnectionSettings;
  /** Makes a TCP connection: a socket that is connecting, with `allowHalfOpen`. Default: of node:net. */
  readonly dial?: (to: HostPort) => Socket;
  /** Of the HBONE server in front of an endpoint. Default: its address, port 15008. */
  readonly hopOf?: (address: HostPort) => HostPort;
  /** Knows the tunnels that can go on without their ztunnel, or this process. Absent: there are none. */
  readonly handOver?: HandOver;
  /** Told of bytes that come from applications and may have to wait here. */
  readonly onBytes?: (bytes: number) => void;
}

/** A connection to an application, through whatever it takes to get there. */
export type Wire =
  | { readonly kind: 'leg'; readonly leg: TunnelLeg }
  /** TLS to the application. */
  | { readonly kind: 'tls'; readonly socket: TLSSocket };

/** Opens connections to applications. */
export interface Wires {
  /**
   * Opens one within the cluster's time; the receiver owns it.
   * @param alpn protocols that are offered inside TLS to the application, if there is any
   * @throws WireError
   */
  readonly open: (target: UpstreamTarget, alpn: readonly string[], signal: AbortSignal) => Promise<Wire>;
  readonly onBytes: WireDeps['onBytes'];
  /** A tunnel that the process before this one had; to be resumed. */
  readonly adopt: (relay: Pick<CarriedRelay, 'id' | 'way' | 'upstream'>) => ClientTunnel;
  /** HBONE sessions that are open. */
  readonly sessions: () => number;
  /** Opens no more; what is open ends by itself. */
  readonly close: () => void;
}

/** There is no connection. */
export class WireError extends Error {
  override readonly name = 'WireError';
  readonly kind: Extract<AttemptFailure['kind'], 'connect' | 'connect-timeout' | 'denied'>;

  constructor(message: string, kind: WireError['kind'], cause?: unknown) {
    super(message, { cause });
    this.kind = kind;
  }
}

export function asLeg(wire: Wire): TunnelLeg {
  return wire.kind === 'leg' ? wire.leg : new DuplexLeg(wire.socket);
}

/** @param onBytes told of what comes in, unless that is done already */
export function asDuplex(wire: Wire, remote: HostPort, onBytes: WireDeps['onBytes']): Duplex {
  return wire.kind === 'leg' ? new TunnelDuplex(wire.leg, { remote, onBytes }) : wire.socket;
}

export function createWires(deps: WireDeps): Wires {
  const dial =
    deps.dial ?? ((to) => connectTcp({ host: to.ip, port: to.port, allowHalfOpen: true, noDelay: true }));
  const hopOf = deps.hopOf ?? (({ ip }) => ({ ip, port: HBONE_PORT }));
  const pool = new Pool<HopTarget>({
    maxStreams: MAX_STREAMS,
    idleMs: SESSION_IDLE_MS,
    connect: ({ hop, svid, expected, timeoutMs }, onClose) =>
      connectHop({ hop, svid, expected, settings: deps.settings, timeoutMs, dial, onClose }),
  });
  const openLeg = (target: UpstreamTarget, signal: AbortSignal): Promise<TunnelLeg> =>
    target.endpoint.tunnel === 'HBONE'
      ? openTunnel({ target, pool, deps, hop: hopOf(target.address), signal })
      : openTcp(dial(target.address), target, signal);
  return {
    open: async (target, alpn, signal) => {
      const { connectTimeoutMs, tls } = target.cluster;
      const inTime = AbortSignal.any([signal, AbortSignal.timeout(timerMs(connectTimeoutMs))]);
      try {
        const leg = await openLeg(target, inTime);
        return tls === undefined
          ? { kind: 'leg', leg }
          : await secure(leg, { target, tls, alpn, signal: inTime, onBytes: deps.onBytes });
      } catch (error) {
        throw wireError(error, target.address, signal, inTime);
      }
    },
    onBytes: deps.onBytes,
    adopt: ({ id, way, upstream }) => tunnelOf(upstream, { id, way, deps, pool }),
    sessions: () => pool.size,
    close: () => pool.close(),
  };
}

interface HopTarget extends PoolTarget {
  readonly timeoutMs: number;
}

async function openTunnel(options: {
  readonly target: UpstreamTarget;
  readonly pool: Pool<HopTarget>;
  readonly deps: WireDeps;
  readonly hop: HostPort;
  readonly signal: AbortSignal;
}): Promise<TunnelLeg> {
  const { target, pool, deps, hop, signal } = options;
  const { endpoint, cluster } = target;
  const { identity } = endpoint;
  if (deps.svid() === undefined) throw new WireError('the waypoint has no certificate yet', 'connect');
  if (identity === undefined) throw new WireError('the endpoint has no identity', 'connect');
  const id = newConnectionId();
  const fields: readonly Field[] = [...connectFields(target), [CONNECTION_ID_HEADER, id]];
  const timeoutMs = cluster.connectTimeoutMs;
  const way: TunnelWay = { hop, identity, timeoutMs, fields };
  let stream: TunnelStream | undefined;
  const giveUp = (): void => stream?.abort('CANCEL');
  signal.addEventListener('abort', giveUp);
  try {
    const opened = pool.open(hopTarget(way, deps), fields, (each) => {
      stream = each;
      if (signal.aborted) each.abort('CANCEL');
    });
    const answered = await orAborted(opened, signal);
    const status = fieldOf(answered.fields, ':status') ?? 'none';
    if (status === '200') {
      const isLasting = deps.handOver !== undefined && canMove(answered, id);
      return isLasting ? tunnelOf(answered, { id, way, deps, pool }).leg : answered.stream;
    }
    answered.stream.abort('CANCEL');
    if (status === DENIED) throw new WireError(`the policy of ${nameOf(endpoint)} denies`, 'denied');
    throw new HboneError(`the tunnel was refused with status ${status}`, { code: 'BAD_STATUS' });
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

/** Sessions are the waypoint's own, whoever calls. @throws HboneError when there is no certificate */
function hopTarget({ hop, identity, timeoutMs }: TunnelWay, { svid: svidOf }: WireDeps): HopTarget {
  const svid = svidOf();
  if (svid === undefined) throw new HboneError('the waypoint has no certificate', { code: 'NO_IDENTITY' });
  return { svid, expected: [identity], caller: '', hop, timeoutMs };
}

/** A tunnel that goes on when the ztunnel at its end is replaced. */
function tunnelOf(
  from: OpenTunnel | LegState,
  options: {
    readonly id: string;
    readonly way: TunnelWay;
    readonly deps: WireDeps;
    readonly pool: Pool<HopTarget>;
  },
): ClientTunnel {
  const { id, way, deps, pool } = options;
  return new ClientTunnel(from, {
    id,
    way,
    reopen: () =>
      askPatiently((onStream) =>
        pool.open(hopTarget(way, deps), [...way.fields, [RESUME_HEADER, id]], onStream),
      ),
    onResumed: (isResumed) =>
      deps.handOver?.count('upstream', isResumed ? 'handed_over' : 'reset_not_resumed'),
  });
}

function nameOf({ workload: { namespace, name } }: Endpoint): string {
  return `${namespace}/${name}`;
}

async function openTcp(socket: Socket, { address }: UpstreamTarget, signal: AbortSignal): Promise<TunnelLeg> {
  try {
    if (socket.connecting) await once(socket, 'connect', { signal });
  } catch (error) {
    socket.on('error', () => undefined).destroy();
    throw signal.aborted
      ? error
      : new WireError(`${formatHostPort(address)}: ${messageOf(error)}`, 'connect');
  }
  return new SocketLeg(socket);
}

async function secure(
  leg: TunnelLeg,
  options: {
    readonly target: UpstreamTarget;
    readonly tls: BackendTls;
    readonly alpn: readonly string[];
    readonly signal: AbortSignal;
    readonly onBytes: WireDeps['onBytes'];
  },
): Promise<Wire> {
  const { target, tls, alpn, signal, onBytes } = options;
  const duplex = new TunnelDuplex(leg, { remote: target.address, onBytes });
  const socket = connectTls({
    socket: duplex,
    servername: tls.serverName,
    ca: tls.roots,
    ALPNProtocols: [...alpn],
    minVersion: 'TLSv1.2',
    checkServerIdentity: (host, certificate) => checkName(tls, host, certificate),
  });
  try {
    await once(socket, 'secureConnect', { signal });
    return { kind: 'tls', socket };
  } catch (error) {
    socket.on('error', () => undefined).destroy();
    duplex.on('error', () => undefined).destroy();
    throw error;
  }
}

/** Names that the policy lists, or else the server name. Of a list, one has to be in the certificate. */
function checkName(tls: BackendTls, host: string, certificate: PeerCertificate): Error | undefined {
  if (tls.subjectAltNames.length === 0) return checkServerIdentity(host, certificate);
  const uris = (certificate.subjectaltname ?? '').split(', ').filter((name) => name.startsWith('URI:'));
  const isNamed = tls.subjectAltNames.some(({ kind, value }) =>
    kind === 'uri' ? uris.includes(`URI:${value}`) : checkServerIdentity(value, certificate) === undefined,
  );
  return isNamed ? undefined : new Error('the certificate has none of the names that are asked for');
}

async function orAborted<T extends { readonly stream: TunnelStream }>(
  opening: Promise<T>,
  signal: AbortSignal,
): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([opening, promise]);
  } catch (error) {
    // What comes too late goes; a failure was told already.
    opening.then(
      ({ stream }) => stream.abort('CANCEL'),
      () => undefined,
    );
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

function wireError(error: unknown, address: HostPort, signal: AbortSignal, inTime: AbortSignal): WireError {
  if (error instanceof WireError) return error;
  const isLate = inTime.aborted && !signal.aborted;
  const kind =
    isLate || (error instanceof HboneError && error.code === 'CONNECT_TIMEOUT')
      ? 'connect-timeout'
      : 'connect';
  const why = isLate ? 'took too long' : messageOf(error);
  return new WireError(`connection to ${formatHostPort(address)}: ${why}`, kind, error);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
