import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import type { Identity } from '#certs/identity.ts';
import { checkClientSocket, PeerError, tlsOptions } from '#certs/peer.ts';
import { watchSession } from '#certs/revoked.ts';
import type { Svid } from '#certs/svid.ts';
import { Connection, type ConnectionSettings } from './connection.ts';
import type { FairShare } from './fair-share.ts';
import type { FloodGuard } from './flood-guard.ts';
import type { Field } from './hpack-tables.ts';
import type { TunnelStream } from './stream.ts';

/** One client's session, and who the client is. */
export interface ServerSession {
  readonly connection: Connection;
  readonly peer: Identity;
  readonly socket: TLSSocket;
  /** What `socket` was made of. */
  readonly accepted: Socket;
}

export interface HboneServerOptions {
  readonly settings: ConnectionSettings;
  /** For the TLS handshake. */
  readonly handshakeTimeoutMs: number;
  /** Whose reads those of sessions are; default: nobody's. */
  readonly share?: FairShare;
  /** Counts streams that are reset or refused, of all sessions of that client; default: of each session alone. */
  readonly resetsOf?: (socket: TLSSocket) => FloodGuard | undefined;
  readonly onSession: (session: ServerSession) => void;
  readonly onRequest: (session: ServerSession, stream: TunnelStream, fields: readonly Field[]) => void;
  readonly onSessionClose: (session: ServerSession, reason: string) => void;
  /** No session came about: no client certificate, a stranger's, not TLS at all… @param socket the one that was accepted, and may be closed */
  readonly onRefused: (error: Error, socket: Socket) => void;
}

/** Makes sessions of accepted sockets, with one SVID. */
export interface HboneServer {
  readonly svid: Svid;
  /** Takes a socket; its end is reported by the session, or as refused. */
  readonly accept: (socket: Socket) => void;
}

/** A server without a listener. One SVID each: for a renewed one make another; sessions go on. */
export function createHboneServer(svid: Svid, options: HboneServerOptions): HboneServer {
  const server: Server = createServer({
    ...tlsOptions(svid),
    handshakeTimeout: options.handshakeTimeoutMs,
  });
  server.on('tlsClientError', (error, socket) => {
    options.onRefused(error, acceptedOf(socket));
    // Node.js closes what is wrong, and leaves open what has only taken too long.
    if ('code' in error && error.code === 'ERR_TLS_HANDSHAKE_TIMEOUT') socket.destroy();
  });
  server.on('secureConnection', (socket) => {
    const check = checkClientSocket(socket, svid.identity.trustDomain);
    if (check.kind === 'refused') refuse(socket, new PeerError(check), options);
    else if (socket.alpnProtocol !== 'h2')
      refuse(socket, new Error('the client does not speak HTTP/2'), options);
    else openSession(svid, socket, check.identity, options);
  });
  return { svid, accept: (socket) => server.emit('connection', socket) };
}

/** What a TLS socket was made of: it knows nothing of itself any more when its handshake has failed. */
function acceptedOf(socket: TLSSocket): Socket {
  return (socket as TLSSocket & { readonly _parent?: Socket | null })._parent ?? socket;
}

function openSession(svid: Svid, socket: TLSSocket, peer: Identity, options: HboneServerOptions): void {
  const resets = options.resetsOf?.(socket);
  const connection: Connection = new Connection(socket, {
    settings: options.settings,
    ...(resets && { resets }),
    ...(options.share && { share: options.share }),
    onRequest: (stream, fields) => options.onRequest(session, stream, fields),
    onClose: (reason) => options.onSessionClose(session, reason),
  });
  const session: ServerSession = { connection, peer, socket, accepted: acceptedOf(socket) };
  options.onSession(session);
  watchSession({ svid, socket, close: (reason) => connection.close(reason) });
  drainAtEnd(connection, socket);
}

/** Longest that a timer can wait. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * A client has proven who it is until its certificate ends: from then on it opens no more streams. Those that are there go on, as
 * they would had it connected afresh for new ones.
 */
function drainAtEnd(connection: Connection, socket: TLSSocket): void {
  const endsAt = Date.parse(socket.getPeerX509Certificate()?.validTo ?? '');
  if (Number.isNaN(endsAt)) return;
  let timer: NodeJS.Timeout | undefined;
  const wait = (): void => {
    const leftMs = endsAt - Date.now();
    if (leftMs <= 0) connection.drain();
    else timer = setTimeout(wait, Math.min(leftMs, MAX_TIMER_MS)).unref();
  };
  wait();
  socket.once('close', () => clearTimeout(timer));
}

function refuse(socket: TLSSocket, error: Error, options: HboneServerOptions): void {
  socket.on('error', () => undefined);
  options.onRefused(error, acceptedOf(socket));
  socket.destroy();
}
