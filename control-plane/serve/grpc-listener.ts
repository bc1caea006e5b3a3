import { once } from 'node:events';
import { createServer, type Server as NetServer, type Socket } from 'node:net';
import type { SecureContextOptions } from 'node:tls';
import {
  logVerbosity,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  setLogVerbosity,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { type CallLimits, createCallGuard } from './call-guard.ts';
import type { CallerTokens } from './caller-tokens.ts';
import { type ConnectionLimits, createConnectionGuard } from './connection-guard.ts';
import { createRefusalLog } from './refusal-log.ts';

/** The address cannot be listened on; the message says why and what to do. */
export class ListenError extends Error {
  override readonly name = 'ListenError';
}

/** Key and chain (leaf first) of the server, PEM. */
export interface ServerCertificate {
  readonly keyPem: string;
  readonly chainPem: string;
}

/** A gRPC service as grpc-js takes it. */
export interface GrpcService {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

/** How much there may be of what is not yet anybody's. */
export interface ListenerLimits {
  /** Connections at a time, authenticated or not. Default 4096. */
  readonly maxConnections?: number;
}

/** A listening gRPC server. */
export interface GrpcListener extends AsyncDisposable {
  readonly port: number;
  /** For connections from now on. */
  readonly setCertificate: (certificate: ServerCertificate) => void;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;

/** How long clients have to close their side when the server closes. */
const LINGER_MS = 100;

/** A reconnecting client names everything it holds, at some 80 bytes a name. */
const LONGEST_REQUEST_BYTES = 32 * 1024 * 1024;

/**
 * Listens for gRPC over TLS 1.3. A call without the token of a node or waypoint is refused before any of its messages is read.
 * @throws ListenError
 */
export async function listenGrpc(options: {
  readonly host: string;
  readonly port: number;
  readonly certificate: ServerCertificate;
  readonly services: readonly GrpcService[];
  readonly tokens: CallerTokens;
  /** Of callers and connections; what is not there is by default. */
  readonly limits?: CallLimits & ConnectionLimits & ListenerLimits;
  /** Told of each connection for which there is no room. */
  readonly onShortage?: (subject: string, error: string) => void;
  readonly logger: Logger;
}): Promise<GrpcListener> {
  setLogVerbosity(logVerbosity.NONE); // What matters is logged here; it would write to the console.
  const { tokens, logger, limits = {} } = options;
  const connections = createConnectionGuard(limits);
  const calls = createCallGuard({ tokens, connections, limits, logger });
  const server = new Server({
    interceptors: [calls.interceptor],
    'grpc.max_receive_message_length': LONGEST_REQUEST_BYTES,
    'grpc.max_send_message_length': -1,
    'grpc.max_concurrent_streams': 100,
    'grpc.keepalive_time_ms': 30_000,
    'grpc.keepalive_timeout_ms': 10_000,
    'grpc.max_connection_idle_ms': 300_000,
    'grpc.enable_channelz': 0,
  });
  for (const { definition, implementation } of options.services)
    server.addService(definition, implementation);
  const credentials = new TlsCredentials(options.certificate);
  const injector = server.createConnectionInjector(credentials);
  const sockets = new Set<Socket>();
  const listener = createServer({ noDelay: true }, (socket: Socket) => {
    sockets.add(socket);
    connections.opened(socket);
    socket.on('close', () => sockets.delete(socket));
    injector.injectConnection(socket);
  });
  const dropped = createRefusalLog(logger, 'connection refused');
  const { maxConnections = 4096 } = limits;
  listener.maxConnections = maxConnections;
  listener.on('drop', (connection) => {
    const reason = `all ${maxConnections} connections are in use: ${connections.describe()}`;
    dropped.write({ peer: connection?.remoteAddress, reason });
    options.onShortage?.('connections', reason);
  });
  await listen(listener, options.host, options.port);
  const address = listener.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : options.port,
    setCertificate: (certificate) => credentials.set(certificate),
    [Symbol.asyncDispose]: async () => {
      calls[Symbol.dispose]();
      const closed = once(listener, 'close');
      listener.close();
      server.forceShutdown();
      const lingering = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, LINGER_MS);
      await closed;
      clearTimeout(lingering);
    },
  };
}

/** TLS 1.3 only; grpc-js has no option for it. */
class TlsCredentials extends ServerCredentials {
  constructor(certificate: ServerCertificate) {
    super({ handshakeTimeout: HANDSHAKE_TIMEOUT_MS }, contextOptions(certificate));
  }

  set(certificate: ServerCertificate): void {
    this.updateSecureContextOptions(contextOptions(certificate));
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

function contextOptions({ keyPem, chainPem }: ServerCertificate): SecureContextOptions {
  return {
    key: keyPem,
    cert: chainPem,
    minVersion: 'TLSv1.3',
    ecdhCurve: 'X25519MLKEM768:X25519:P-256',
  };
}

async function listen(listener: NetServer, host: string, port: number): Promise<void> {
  try {
    listener.listen({ host, port });
    await once(listener, 'listening');
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    const where = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
    const reasons = new Map<unknown, string>([
      [
        'EADDRINUSE',
        `the port is in use (ss -ltnp 'sport = :${port}' says by whom); stop that process or listen elsewhere`,
      ],
      ['EADDRNOTAVAIL', 'it is no address of this network namespace; see `ip address`'],
      ['EACCES', 'not permitted; ports below 1024 want root'],
    ]);
    const reason = reasons.get(code) ?? (cause instanceof Error ? cause.message : String(cause));
    throw new ListenError(`cannot listen on ${where}: ${reason}`, { cause });
  }
}
