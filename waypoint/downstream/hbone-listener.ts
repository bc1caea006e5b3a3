import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import type { HostPort } from '#api/address.ts';
import type { Svid } from '#certs/svid.ts';
import type { Offer } from '#ztunnel/hand-over/offer.ts';
import { canonicalIp } from '#ztunnel/hbone/authority.ts';
import type { ConnectionSettings } from '#ztunnel/hbone/connection.ts';
import { HandshakeGate, type HandshakeGateOptions } from '#ztunnel/hbone/handshake-gate.ts';
import { handshakeText } from '#ztunnel/hbone/handshake-text.ts';
import { createHboneServer, type HboneServer, type ServerSession } from '#ztunnel/hbone/server.ts';
import { offerOf } from '../hand-over/listening-socket.ts';
import { ownerOf, SESSION_BYTES, STREAM_BYTES } from '../memory/costs.ts';
import type { Ledger } from '../memory/ledger.ts';
import type { Tunnels } from './tunnels.ts';

/** Why there is no session. */
export interface SessionFailure {
  /** Undefined: it was gone before anybody looked. */
  readonly remote: HostPort | undefined;
  readonly reason: string;
}

export interface HboneListenerOptions {
  readonly listen: HostPort;
  readonly tunnels: Tunnels;
  readonly settings: ConnectionSettings;
  readonly ledger: Ledger;
  /** The waypoint's own, newest first choice; undefined: it has none that is valid. */
  readonly svid: () => Svid | undefined;
  /** A connection that came to nothing, or a fault of our own; for the log. */
  readonly onFailure: (failure: SessionFailure) => void;
  /** Handshakes are refused, or given up, for want of room. */
  readonly onShed: HandshakeGateOptions['onShed'];
}

const HANDSHAKE_TIMEOUT_MS = 10_000;
const KEEPALIVE_MS = 180_000;
const SOCKET_BUFFER_BYTES = 256 * 1024;
/** Connections at a time whose peers have not proven yet who they are. */
const HANDSHAKES = { handshakes: 1_024, handshakesOfPeer: 256 } as const;

/** Port 15008: takes callers' sessions. */
export class HboneListener {
  readonly #options: HboneListenerOptions;
  readonly #server: Server;
  readonly #sessions = new Set<ServerSession>();
  /** For the SVID that is current; made anew when that is renewed. */
  #hbone: HboneServer | undefined;
  readonly #gate: HandshakeGate;
  /** Where they come from: a socket no longer knows when its handshake has failed. */
  readonly #remotes = new WeakMap<Socket, HostPort>();
  #onSessionsChange: (() => void) | undefined;

  constructor(options: HboneListenerOptions) {
    this.#options = options;
    this.#gate = new HandshakeGate({
      limits: HANDSHAKES,
      onShed: options.onShed,
      onLeave: () => this.#onSessionsChange?.(),
    });
    this.#server = createServer({
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEPALIVE_MS,
      highWaterMark: SOCKET_BUFFER_BYTES,
    });
    this.#server.on('connection', (socket) => void this.#accept(socket));
    this.#server.on('error', (error) => options.onFailure({ remote: undefined, reason: error.message }));
  }

  /** What a successor can have, so that both take from one queue; undefined while it does not listen. */
  offer(): Offer | undefined {
    return offerOf(this.#server);
  }

  /**
   * Opens the port, which a predecessor may have open too.
   * @param fd a socket that listens already; the listener's from now on
   * @returns where it listens
   * @throws Error when it cannot
   */
  async open(fd?: number): Promise<HostPort> {
    const { listen } = this.#options;
    const listening = once(this.#server, 'listening');
    if (fd === undefined) this.#server.listen({ host: listen.ip, port: listen.port, reusePort: true });
    else this.#server.listen({ fd });
    await listening;
    const address = this.#server.address();
    return typeof address === 'object' && address !== null
      ? { ip: address.address, port: address.port }
      : listen;
  }

  /** Takes no more connections, and has clients open no more streams. */
  drain(): void {
    // At the end of the turn, when all have been accepted that were waiting: the kernel resets the others.
    setImmediate(() => this.#server.close());
    for (const { connection } of [...this.#sessions]) connection.drain();
  }

  /** Resolves when the last session has ended, and nobody is about to have one. */
  async untilIdle(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onSessionsChange = () => {
      if (this.#sessions.size === 0 && this.#gate.size === 0) resolve();
    };
    this.#onSessionsChange();
    await promise;
  }

  /** Ends what is left at once: callers see resets. */
  close(reason: string): void {
    this.#server.close();
    for (const socket of this.#gate.sockets) socket.destroy();
    for (const { connection } of [...this.#sessions]) connection.close(reason);
  }

  get sessionCount(): number {
    return this.#sessions.size;
  }

  get streamCount(): number {
    return [...this.#sessions].reduce((sum, { connection }) => sum + connection.streamCount, 0);
  }

  async #accept(socket: Socket): Promise<void> {
    // Until a session listens, and for what it does not hear after its end.
    socket.on('error', () => undefined);
    const remote = remoteOf(socket);
    if (remote !== undefined) this.#remotes.set(socket, remote);
    if (!(await this.#gate.enter(socket))) {
      this.#report(socket, 'no place for its TLS handshake');
      return;
    }
    if (socket.destroyed) return;
    const svid = this.#options.svid();
    if (svid === undefined) {
      this.#report(socket, 'the waypoint has no certificate');
      socket.resetAndDestroy();
      return;
    }
    if (this.#hbone?.svid !== svid) this.#hbone = this.#createServer(svid);
    this.#hbone.accept(socket);
  }

  #createServer(svid: Svid): HboneServer {
    const { settings, tunnels } = this.#options;
    return createHboneServer(svid, {
      settings,
      handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
      onSession: (session) => {
        this.#hold(session);
        this.#sessions.add(session);
        this.#gate.leave(session.accepted);
        // It was accepted before the port was closed.
        if (!this.#server.listening) session.connection.drain();
      },
      onSessionClose: (session, reason) => {
        if (reason.startsWith('internal error')) this.#report(session.accepted, reason);
        this.#sessions.delete(session);
        this.#onSessionsChange?.();
      },
      onRefused: (error, socket) => this.#report(socket, `TLS handshake failed: ${handshakeText(error)}`),
      onRequest: (session, stream, fields) => {
        const remote = remoteOf(session.socket);
        if (remote === undefined) stream.abort();
        else tunnels.serve(session, stream, fields, remote);
      },
    });
  }

  /** Its tunnels are accounted for apart. */
  #hold({ connection, peer, socket }: ServerSession): void {
    const address = remoteOf(socket);
    if (address === undefined) return;
    const { ledger } = this.#options;
    const holder = {
      owner: ownerOf({ identity: peer, address }),
      held: () => SESSION_BYTES + connection.streamCount * STREAM_BYTES + socket.writableLength,
      shed: (why: string) => connection.close(why, 'ENHANCE_YOUR_CALM'),
    };
    ledger.note(SESSION_BYTES);
    ledger.add(holder);
    socket.once('close', () => ledger.delete(holder));
  }

  #report(socket: Socket, reason: string): void {
    this.#options.onFailure({ remote: this.#remotes.get(socket), reason });
  }
}

function remoteOf({ remoteAddress, remotePort }: Socket): HostPort | undefined {
  if (remoteAddress === undefined || remotePort === undefined) return undefined;
  return { ip: canonicalIp(remoteAddress), port: remotePort };
}
