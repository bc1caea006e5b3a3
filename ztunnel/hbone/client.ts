import { once } from 'node:events';
import type { Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { formatHostPort, type HostPort } from '#api/address.ts';
import type { Identity } from '#certs/identity.ts';
import { clientTlsOptions } from '#certs/peer.ts';
import { watchSession } from '#certs/revoked.ts';
import type { Svid } from '#certs/svid.ts';
import { Connection, type ConnectionSettings } from './connection.ts';
import { HboneError } from './error.ts';
import { shareOf } from './fair-share.ts';
import { handshakeText } from './handshake-text.ts';

/** Whom to connect to, and as whom. */
export interface HopOptions {
  readonly hop: HostPort;
  readonly svid: Svid;
  /** The server has to be one of these. */
  readonly expected: readonly Identity[];
  /** Makes the TCP connection: a socket that is connecting. */
  readonly dial: (to: HostPort) => Socket;
  readonly settings: ConnectionSettings;
  /** For TCP and TLS together. */
  readonly timeoutMs: number;
  readonly onClose: (reason: string) => void;
}

/**
 * Opens a session to an HBONE server: TCP, mutual TLS without a server name, HTTP/2.
 * @throws HboneError CONNECT_FAILED, CONNECT_TIMEOUT, TLS_FAILED
 */
export async function connectHop(options: HopOptions): Promise<Connection> {
  const { hop, svid, expected, settings, onClose } = options;
  const socket = dial(options);
  // Errors after the handshake are the TLS socket's; this one is only its descriptor.
  socket.on('error', () => undefined);
  const timer = setTimeout(() => socket.destroy(new HopTimeout()), options.timeoutMs);
  try {
    if (socket.connecting)
      await once(socket, 'connect').catch((error: unknown) => fail(hop, 'CONNECT_FAILED', error));
    socket.setNoDelay(true);
    const secure = connectTls({ socket, ...clientTlsOptions(svid, expected) });
    await untilSecure(secure, socket).catch((error: unknown) => fail(hop, 'TLS_FAILED', error));
    const share = shareOf(socket);
    const connection = new Connection(secure, { settings, onClose, ...(share && { share }) });
    watchSession({ svid, socket: secure, close: (reason) => connection.close(reason) });
    return connection;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

class HopTimeout extends Error {}

function dial({ dial, hop }: HopOptions): Socket {
  try {
    return dial(hop);
  } catch (error) {
    return fail(hop, 'CONNECT_FAILED', error);
  }
}

async function untilSecure(secure: TLSSocket, socket: Socket): Promise<void> {
  const failed = new AbortController();
  socket.once('error', (error) => failed.abort(error));
  try {
    await once(secure, 'secureConnect', { signal: failed.signal });
  } catch (error) {
    secure.on('error', () => undefined);
    secure.destroy();
    throw failed.signal.aborted ? failed.signal.reason : error;
  }
  if (secure.alpnProtocol === 'h2') return;
  secure.destroy();
  throw new Error('the peer does not speak HTTP/2');
}

function fail(hop: HostPort, code: 'CONNECT_FAILED' | 'TLS_FAILED', cause: unknown): never {
  const where = formatHostPort(hop);
  if (cause instanceof HopTimeout) {
    throw new HboneError(`connection to ${where} timed out`, { code: 'CONNECT_TIMEOUT' });
  }
  const message =
    code === 'TLS_FAILED'
      ? `TLS handshake with ${where} failed: ${handshakeText(cause)}`
      : `connection to ${where} failed: ${cause instanceof Error ? cause.message : String(cause)}`;
  throw new HboneError(message, { code, cause });
}
