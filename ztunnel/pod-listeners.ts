import { createServer, type Server, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Workload } from '#api/workload.ts';
import { PORT_HBONE, PORT_INBOUND_PLAINTEXT, PORT_OUTBOUND } from './capture/capture.ts';
import { failedRecord } from './connection-record.ts';
import {
  CONFIGURATION_WAIT_MS,
  type DataPath,
  localOf,
  remoteOf,
  type ServedPod,
  unknownPeer,
  workloadOf,
} from './data-path.ts';
import { exhaustedDescriptors } from './exhausted.ts';
import { type OfferedSockets, SharedSockets } from './hand-over/take.ts';
import { createHboneServer, type HboneServer, type ServerSession } from './hbone/server.ts';
import { identityOf } from './identity-of.ts';
import { serveInbound } from './inbound.ts';
import { serveOutbound } from './outbound.ts';
import { servePlaintext } from './passthrough.ts';
import { descriptorOf, SOCKET_BUFFER_BYTES } from './pod-sockets.ts';
import type { OpenedListeners } from './worker-messages.ts';

/** For a TLS handshake of a client. */
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** TCP keepalive of sockets from elsewhere. */
const KEEPALIVE_MS = 180_000;
/** How often one kind of failure to accept is recorded. */
const ACCEPT_FAILURE_INTERVAL_MS = 1_000;

type Serve = (socket: Socket) => Promise<void>;

/** The listeners of a pod, and the HBONE sessions that came in by them. */
export class PodListeners {
  readonly #path: DataPath;
  readonly #pod: ServedPod;
  readonly #servers: Server[] = [];
  readonly #sessions = new Set<ServerSession>();
  /** Sockets that were accepted and are not yet a connection or a session that counts as such. */
  readonly #arriving = new Set<string>();
  #hasClosed = false;
  #isDraining = false;
  /** For the SVID that is current; made anew when that is renewed. */
  #hbone: { readonly server: HboneServer; readonly workload: Workload } | undefined;
  #failureRecordedAt = 0;

  constructor(path: DataPath, pod: ServedPod) {
    this.#path = path;
    this.#pod = pod;
  }

  /**
   * Opens the three ports; all or none. Where sockets of another process are offered, they are shared.
   * @param netnsFd the pod's network namespace
   * @throws NativeError
   */
  open(netnsFd: number, offered?: OfferedSockets): OpenedListeners {
    const shared = new SharedSockets(netnsFd, offered);
    const open = (port: number, allowHalfOpen: boolean, serve: Serve): void =>
      this.#listen(
        port,
        shared.take(({ address }) => address.port === port),
        allowHalfOpen,
        serve,
      );
    try {
      open(PORT_OUTBOUND, true, (socket) => serveOutbound(this.#path, this.#pod, socket));
      open(PORT_INBOUND_PLAINTEXT, true, (socket) => servePlaintext(this.#path, this.#pod, socket));
      open(PORT_HBONE, false, (socket) => this.#acceptHbone(socket));
      return {
        descriptors: this.#servers.flatMap((server) => descriptorOf(server) ?? []),
        left: shared.left,
      };
    } catch (error) {
      this.close();
      throw error;
    } finally {
      shared.close();
    }
  }

  /** Takes no more connections. Those that are there go on, and sessions take more streams. */
  close(): void {
    // At the end of the turn, when all have been accepted that were waiting: the kernel resets the others.
    const servers = this.#servers.splice(0);
    setImmediate(() => {
      for (const server of servers) server.close();
      this.#hasClosed = true;
      this.#path.connections.notify();
    });
  }

  /** Has clients open no more streams, also those whose session is still to come; sessions close when their last has ended. */
  drainSessions(): void {
    this.#isDraining = true;
    for (const { connection } of [...this.#sessions]) connection.drain();
  }

  /** Ends the sessions, and waits no longer for what is to become one. */
  cutSessions(reason: string): void {
    this.#arriving.clear();
    this.#path.connections.notify();
    for (const { connection } of [...this.#sessions]) connection.close(reason);
  }

  /** Whether nothing comes in any more, and of what came in is no session left, nor anything that is to become something. */
  get isIdle(): boolean {
    return this.#hasClosed && this.#arriving.size === 0 && this.#sessions.size === 0;
  }

  /** On every socket that is shared, else on one of its own. */
  #listen(port: number, shared: Iterable<number>, allowHalfOpen: boolean, serve: Serve): void {
    let isShared = false;
    for (const fd of shared) {
      this.#listenOn(port, fd, allowHalfOpen, serve);
      isShared = true;
    }
    if (!isShared) this.#listenOn(port, undefined, allowHalfOpen, serve);
  }

  #listenOn(port: number, fd: number | undefined, allowHalfOpen: boolean, serve: Serve): void {
    const server = createServer({
      allowHalfOpen,
      noDelay: true,
      // An application of this pod does not vanish without its kernel saying so.
      keepAlive: port !== PORT_OUTBOUND,
      keepAliveInitialDelay: KEEPALIVE_MS,
      highWaterMark: SOCKET_BUFFER_BYTES,
    });
    server.on('connection', (socket) => {
      // Until a leg or a session listens, and for what they do not hear after their end.
      socket.on('error', () => undefined);
      const arrived = this.#arrives(socket);
      const served = serve(socket).catch((error: unknown) => {
        socket.resetAndDestroy();
        this.#recordFailure(socket, `internal error: ${String(error)}`, '-');
      });
      // What comes in by HBONE has its handshake before it yet.
      if (port !== PORT_HBONE) void served.then(arrived);
    });
    server.on('error', (error) => this.#onAcceptError(port, error));
    this.#pod.sockets.listen(server, port, fd);
    this.#servers.push(server);
  }

  /** Counts a socket until the function that it returns is called, or it has closed. */
  #arrives(socket: Socket): () => void {
    const key = endsOf(socket);
    const arrived = (): void => this.#hasArrived(key);
    this.#arriving.add(key);
    socket.once('close', arrived);
    return arrived;
  }

  #hasArrived(key: string): void {
    if (this.#arriving.delete(key)) this.#path.connections.notify();
  }

  /** Out of descriptors or memory: the kernel drops what it cannot hand over, and what is there goes on. */
  #onAcceptError(port: number, error: Error): void {
    const now = performance.now();
    if (now - this.#failureRecordedAt < ACCEPT_FAILURE_INTERVAL_MS) return;
    this.#failureRecordedAt = now;
    this.#path.record(
      failedRecord(
        {
          direction: port === PORT_OUTBOUND ? 'outbound' : 'inbound',
          source: { address: '' },
          destination: { address: `${this.#pod.info.namespace}/${this.#pod.info.name}:${port}` },
          security: 'unknown',
        },
        { error: `connections are refused: ${exhaustedDescriptors(error) ?? error.message}`, flags: '-' },
      ),
    );
  }

  async #acceptHbone(socket: Socket): Promise<void> {
    const workload = await workloadOf(this.#path, this.#pod);
    const svid = workload && (await this.#path.svids.until(identityOf(workload), CONFIGURATION_WAIT_MS));
    if (workload === undefined || svid === undefined) {
      const what =
        workload === undefined ? 'the workload is not known yet' : 'the workload has no certificate yet';
      this.#recordFailure(socket, what, workload === undefined ? '-' : 'IDENTITY_ERROR');
      socket.destroy();
      return;
    }
    if (this.#hbone?.server.svid !== svid || this.#hbone.workload.uid !== workload.uid) {
      this.#hbone = { server: this.#createHboneServer(svid, workload), workload };
    }
    this.#hbone.server.accept(socket);
  }

  #createHboneServer(svid: HboneServer['svid'], workload: Workload): HboneServer {
    return createHboneServer(svid, {
      settings: this.#path.config.hbone,
      handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
      onSession: (session) => {
        this.#sessions.add(session);
        this.#hasArrived(endsOf(session.socket));
        if (this.#isDraining) session.connection.drain();
      },
      onSessionClose: (session, reason) => {
        if (reason.startsWith('internal error')) this.#recordFailure(session.socket, reason, '-');
        this.#sessions.delete(session);
        this.#path.connections.notify();
      },
      onRefused: (error, socket) => {
        this.#hasArrived(endsOf(socket));
        this.#recordFailure(socket, `TLS handshake failed: ${error.message}`, 'TLS_FAILURE');
      },
      onRequest: (session, stream, fields) => {
        const remote = remoteOf(session.socket);
        const local = localOf(session.socket);
        if (remote === undefined || local === undefined) {
          stream.abort();
          return;
        }
        const current = this.#path.tables.workloadByUid(workload.uid) ?? workload;
        const call = {
          path: this.#path,
          pod: this.#pod,
          workload: current,
          session,
          stream,
          fields,
          remote,
          local,
        };
        serveInbound(call).catch((error: unknown) => {
          stream.abort('INTERNAL_ERROR');
          this.#recordFailure(session.socket, `internal error: ${String(error)}`, '-');
        });
      },
    });
  }

  #recordFailure(
    socket: Socket | TLSSocket,
    error: string,
    flags: '-' | 'TLS_FAILURE' | 'IDENTITY_ERROR',
  ): void {
    const remote = remoteOf(socket);
    const local = localOf(socket);
    if (remote === undefined || local === undefined) return;
    this.#path.record(
      failedRecord(
        {
          direction: 'inbound',
          source: unknownPeer(remote),
          destination: unknownPeer(local),
          security: 'unknown',
        },
        { error, flags },
      ),
    );
  }
}

/** What only one socket has at a time, and a session's TLS socket has from the one below it. */
function endsOf({ remoteAddress, remotePort, localAddress, localPort }: Socket | TLSSocket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
