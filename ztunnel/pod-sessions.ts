import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Workload } from '#api/workload.ts';
import { type ClientAddress, ClientAddresses } from './client-addresses.ts';
import {
  CONFIGURATION_WAIT_MS,
  type DataPath,
  localOf,
  remoteOf,
  type ServedPod,
  workloadOf,
} from './data-path.ts';
import type { FailedArrivals } from './failed-arrivals.ts';
import { HandshakeGate } from './hbone/handshake-gate.ts';
import { handshakeText } from './hbone/handshake-text.ts';
import type { Field } from './hbone/hpack-tables.ts';
import { createHboneServer, type HboneServer, type ServerSession } from './hbone/server.ts';
import type { TunnelStream } from './hbone/stream.ts';
import { identityOf } from './identity-of.ts';
import { serveInbound } from './inbound.ts';
import type { Shortage } from './shedding.ts';
import { withoutSvid } from './worker-svids.ts';

/** For a TLS handshake of a client. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

/** The HBONE sessions of clients with a pod, and those that are to be some. */
export class PodSessions {
  readonly #path: DataPath;
  readonly #pod: ServedPod;
  readonly #failed: FailedArrivals;
  readonly #gate: HandshakeGate;
  readonly #sessions = new Set<ServerSession>();
  readonly #addresses: ClientAddresses;
  readonly #clients = new WeakMap<TLSSocket, ClientAddress>();
  #isDraining = false;
  #isRetiring = false;
  /** For the SVID that is current; made anew when that is renewed. */
  #hbone: { readonly server: HboneServer; readonly workload: Workload } | undefined;

  constructor(path: DataPath, pod: ServedPod, failed: FailedArrivals) {
    this.#path = path;
    this.#pod = pod;
    this.#failed = failed;
    this.#gate = new HandshakeGate({
      limits: path.limits,
      onShed: (shortage, error) => this.#shed(shortage, error),
      onLeave: () => path.connections.notify(),
    });
    this.#addresses = new ClientAddresses(path.limits.resetsOfPeer);
  }

  /** Takes a socket; its end is a session's, or written down as failed. Resolves when the handshake may begin. */
  async accept(socket: Socket): Promise<void> {
    if (!(await this.#gate.enter(socket))) return;
    this.#failed.arrived(socket);
    const workload = await workloadOf(this.#path, this.#pod);
    const svid = workload && (await this.#path.svids.until(identityOf(workload), CONFIGURATION_WAIT_MS));
    if (workload === undefined || svid === undefined) {
      const what =
        workload === undefined
          ? 'the workload is not known yet'
          : withoutSvid(identityOf(workload), 'workload');
      this.#failed.note(socket, what, workload === undefined ? '-' : 'IDENTITY_ERROR');
      socket.destroy();
      return;
    }
    if (socket.destroyed) return;
    if (this.#hbone?.server.svid !== svid || this.#hbone.workload.uid !== workload.uid) {
      this.#hbone = { server: this.#createHboneServer(svid, workload), workload };
    }
    this.#hbone.server.accept(socket);
  }

  /** Has clients open no more streams, also those whose session is still to come; sessions close when their last has ended. */
  drain(): void {
    this.#isDraining = true;
    for (const { connection } of [...this.#sessions]) connection.drain();
  }

  /** Has the tunnels of all handed over, also of those that are still to come. */
  async retire(): Promise<void> {
    this.#isRetiring = true;
    await Promise.all([...this.#sessions].map(({ connection }) => connection.handOver.retire()));
  }

  /** Ends the sessions, and what is to become one. */
  cut(reason: string): void {
    for (const socket of this.#gate.sockets) socket.destroy();
    for (const { connection } of [...this.#sessions]) connection.close(reason);
  }

  /** Whether there is no session left, nor anything that is to become one. */
  get isIdle(): boolean {
    return this.#sessions.size === 0 && this.#gate.size === 0;
  }

  #createHboneServer(svid: HboneServer['svid'], workload: Workload): HboneServer {
    return createHboneServer(svid, {
      settings: this.#path.config.hbone,
      handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
      share: this.#pod.share,
      resetsOf: (socket) => this.#clientOf(socket).resets,
      onSession: (session) => this.#onSession(session),
      onSessionClose: (session, reason) => {
        if (reason.startsWith('internal error')) this.#failed.note(session.socket, reason, '-');
        const client = this.#clients.get(session.socket);
        if (this.#sessions.delete(session) && client !== undefined) this.#addresses.closed(client);
        this.#path.connections.notify();
      },
      onRefused: (error, socket) => {
        this.#failed.note(socket, `TLS handshake failed: ${handshakeText(error)}`, 'TLS_FAILURE');
      },
      onRequest: (session, stream, fields) => {
        this.#pod.share.run(() => this.#serve(workload, session, stream, fields));
      },
    });
  }

  #serve(workload: Workload, session: ServerSession, stream: TunnelStream, fields: readonly Field[]): void {
    // It may have been given up before it was its turn.
    if (stream.isOver) return;
    const remote = remoteOf(session.socket);
    const local = localOf(session.socket);
    if (remote === undefined || local === undefined) {
      stream.abort();
      return;
    }
    const [path, pod] = [this.#path, this.#pod];
    const current = path.tables.workloadByUid(workload.uid) ?? workload;
    const call = { path, pod, workload: current, session, stream, fields, remote, local };
    serveInbound(call).catch((error: unknown) => {
      stream.abort('INTERNAL_ERROR');
      this.#failed.note(session.socket, `internal error: ${String(error)}`, '-');
    });
  }

  #onSession(session: ServerSession): void {
    this.#sessions.add(session);
    this.#gate.leave(session.accepted);
    if (this.#isRetiring) void session.connection.handOver.retire();
    const { ip, sessions } = this.#clients.get(session.socket) ?? { ip: 'a client', sessions: 0 };
    if (sessions > this.#path.limits.sessionsOfPeer) {
      this.#shed('peer-sessions', `${ip} has ${sessions - 1} sessions, as many as one client may have`);
      session.connection.close('too many sessions', 'ENHANCE_YOUR_CALM');
    } else if (this.#isDraining) session.connection.drain();
  }

  /** The client has one session more. */
  #clientOf(socket: TLSSocket): ClientAddress {
    const client = this.#addresses.opened(remoteOf(socket)?.ip ?? '');
    this.#clients.set(socket, client);
    return client;
  }

  #shed(shortage: Shortage, error: string): void {
    const { namespace, name } = this.#pod.info;
    this.#path.shedding.note(shortage, `${namespace}/${name}`, error);
  }
}
