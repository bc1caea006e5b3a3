import { createServer, type Server, type Socket } from 'node:net';
import { PORT_HBONE, PORT_INBOUND_PLAINTEXT, PORT_OUTBOUND } from './capture/capture.ts';
import type { DataPath, ServedPod } from './data-path.ts';
import { FailedArrivals } from './failed-arrivals.ts';
import { type OfferedSockets, SharedSockets } from './hand-over/take.ts';
import { serveOutbound } from './outbound.ts';
import { servePlaintext } from './passthrough.ts';
import { PodSessions } from './pod-sessions.ts';
import { descriptorOf, SOCKET_BUFFER_BYTES } from './pod-sockets.ts';
import type { OpenedListeners } from './worker-messages.ts';

/** TCP keepalive of sockets from elsewhere. */
const KEEPALIVE_MS = 180_000;

type Serve = (socket: Socket) => Promise<void>;

/** The listeners of a pod, and the HBONE sessions that came in by them. */
export class PodListeners {
  readonly #path: DataPath;
  readonly #pod: ServedPod;
  readonly #servers: Server[] = [];
  readonly #sessions: PodSessions;
  readonly #failed: FailedArrivals;
  /** Sockets that were accepted and are not yet a connection that counts as such. */
  readonly #arriving = new Set<Socket>();
  #hasClosed = false;

  constructor(path: DataPath, pod: ServedPod) {
    this.#path = path;
    this.#pod = pod;
    this.#failed = new FailedArrivals(path.record);
    this.#sessions = new PodSessions(path, pod, this.#failed);
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
      open(PORT_HBONE, false, (socket) => this.#sessions.accept(socket));
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
    this.#sessions.drain();
  }

  /** Has the tunnels of all sessions handed over to the successor of this process, also of those that are still to come. */
  async retireSessions(): Promise<void> {
    await this.#sessions.retire();
  }

  /** Ends the sessions, and what has come in and is nothing yet. */
  cutSessions(reason: string): void {
    for (const socket of [...this.#arriving]) socket.resetAndDestroy();
    this.#arriving.clear();
    this.#sessions.cut(reason);
    this.#path.connections.notify();
  }

  /** Whether nothing comes in any more, and of what came in is no session left, nor anything that is to become something. */
  get isIdle(): boolean {
    return this.#hasClosed && this.#arriving.size === 0 && this.#sessions.isIdle;
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
      if (!this.#pod.sockets.admit(socket)) return;
      this.#arrives(socket);
      this.#pod.share.run(() => this.#serve(socket, serve));
    });
    server.on('error', (error) => this.#pod.sockets.acceptFailed(error));
    this.#pod.sockets.listen(server, port, fd);
    this.#servers.push(server);
  }

  #serve(socket: Socket, serve: Serve): void {
    if (socket.destroyed) return;
    const served = serve(socket).catch((error: unknown) => {
      socket.resetAndDestroy();
      this.#failed.note(socket, `internal error: ${String(error)}`, '-');
    });
    void served.then(() => this.#hasArrived(socket));
  }

  /** Counts a socket until it is served, or has closed. */
  #arrives(socket: Socket): void {
    this.#arriving.add(socket);
    socket.once('close', () => this.#hasArrived(socket));
  }

  #hasArrived(socket: Socket): void {
    if (this.#arriving.delete(socket)) this.#path.connections.notify();
  }
}
