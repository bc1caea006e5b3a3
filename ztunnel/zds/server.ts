import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import type { Logger } from 'pino';
import { closeDescriptor, openNamespace, warmThreadPool } from '../capture/in-pod-sockets.ts';
import { sys } from '../capture/native.ts';
import type { PodInfo } from '../worker-messages.ts';
import { openConnection } from './connection.ts';
import { ZdsError } from './messages.ts';
import { forget, readable } from './readiness.ts';
import { accept, listenAt, rmSocket } from './seqpacket.ts';
import { openSession, type ZtunnelSession } from './ztunnel-session.ts';

/** A pod of the node and where its network namespace is. */
export interface LocatedPod {
  readonly pod: PodInfo;
  readonly netnsPath: string;
}

export interface ZdsServerOptions {
  /** Path of the socket: made with mode 0600, removed at the end. A stale file there is replaced. */
  readonly path: string;
  /** The pods that a ztunnel is told when it connects, and again when a newer one leaves. */
  readonly snapshot: () => Iterable<LocatedPod>;
  /** A ztunnel has connected and been told the snapshot, or one has left. */
  readonly onChange: (event: { readonly kind: 'connected' | 'left'; readonly connected: number }) => void;
  /** A ztunnel refused a pod of the snapshot, with its words. It tries again by itself. */
  readonly onRefused: (uid: string, message: string) => void;
  readonly logger: Logger;
  /** Milliseconds that a hello and each answer may take; default 5000. */
  readonly answerMs?: number;
}

/** The node agent's end of ZDS. */
export interface ZdsServer {
  /**
   * Tells the newest connected ztunnel of a pod, and waits until it serves it.
   * @throws ZdsError `not-connected`, `refused` with the ztunnel's words, `timeout`, `closed`; NativeError or TypeError
   * when the namespace is gone
   */
  readonly add: (pod: PodInfo, netnsPath: string) => Promise<void>;
  /** Tells every connected ztunnel that a pod is gone; what one of them answers is only logged. */
  readonly del: (uid: string) => Promise<void>;
  /** Ztunnels that have been told the snapshot. */
  readonly connected: () => number;
  /** Closes every connection and removes the socket. Ztunnels keep their pods. */
  readonly close: () => void;
}

const DEFAULT_ANSWER_MS = 5_000;
/** At most five connections a second are taken, so that a ztunnel that fails in a loop costs little. */
const ACCEPT_INTERVAL_MS = 200;
/** One ztunnel, a second one during an upgrade, and some that are not yet known to be dead. */
const MAX_CONNECTIONS = 8;

/**
 * Serves ZDS to any number of ztunnels, of any make, each by itself: one that sends garbage, or nothing, is dropped with a
 * line in the log.
 * @throws ZdsError `address`
 */
export async function serveZds(options: ZdsServerOptions): Promise<ZdsServer> {
  await warmThreadPool();
  return new Server(options);
}

class Server implements ZdsServer {
  readonly #options: ZdsServerOptions;
  readonly #listener: number;
  /** In the order in which they connected. */
  readonly #sessions = new Set<ZtunnelSession>();
  readonly #synced = new Set<ZtunnelSession>();
  #connections = 0;
  #closed = false;

  constructor(options: ZdsServerOptions) {
    this.#options = options;
    this.#listener = listenAt(options.path);
    this.#acceptAll().catch((error: unknown) => {
      options.logger.error({ error: String(error) }, 'no ztunnel can connect any more');
    });
  }

  async add(pod: PodInfo, netnsPath: string): Promise<void> {
    const newest = this.#newest();
    if (newest === undefined) throw new ZdsError('no ztunnel is connected', { code: 'not-connected' });
    await tell(newest, pod, openNamespace(netnsPath));
  }

  async del(uid: string): Promise<void> {
    const told = [...this.#sessions].map((session) => session.request({ kind: 'del', uid }));
    for (const result of await Promise.allSettled(told)) {
      if (result.status === 'fulfilled') continue;
      const error = String(result.reason);
      this.#options.logger.warn({ uid, error }, 'a ztunnel did not confirm that it dropped a pod');
    }
  }

  connected(): number {
    return this.#synced.size;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    forget(this.#listener);
    sys.close(this.#listener);
    rmSocket(this.#options.path);
    const reason = new ZdsError('the node agent stops', { code: 'closed' });
    for (const session of this.#sessions) session.close(reason);
  }

  async #acceptAll(): Promise<void> {
    while (!this.#closed) {
      await readable(this.#listener);
      if (this.#closed) return;
      this.#acceptOne();
      await delay(ACCEPT_INTERVAL_MS, undefined, { ref: false });
    }
  }

  #acceptOne(): void {
    const { logger } = this.#options;
    try {
      const fd = accept(this.#listener);
      if (fd === undefined) return;
      if (this.#connections < MAX_CONNECTIONS) void this.#serve(fd);
      else {
        sys.close(fd);
        logger.warn({ connections: this.#connections }, 'too many ztunnels, dropped one');
      }
    } catch (error) {
      logger.error({ error: String(error) }, 'a ztunnel cannot connect');
    }
  }

  async #serve(fd: number): Promise<void> {
    const { logger, answerMs = DEFAULT_ANSWER_MS, onChange } = this.#options;
    this.#connections++;
    try {
      const session = await openSession(openConnection(fd), answerMs);
      this.#sessions.add(session);
      void this.#sendSnapshot(session);
      const reason = await session.ended;
      const wasNewest = session === this.#newest();
      this.#sessions.delete(session);
      if (wasNewest) void this.#addAllToNewest();
      logger[reason.code === 'closed' ? 'info' : 'warn']({ error: reason.message }, 'ztunnel disconnected');
      if (this.#synced.delete(session)) onChange({ kind: 'left', connected: this.#synced.size });
    } catch (error) {
      logger.warn({ error: String(error) }, 'dropped a connection that is no ztunnel');
    } finally {
      this.#connections--;
    }
  }

  #newest(): ZtunnelSession | undefined {
    return [...this.#sessions].at(-1);
  }

  /** The newest ztunnel has left, and only it was told of pods that were added since it came. */
  async #addAllToNewest(): Promise<void> {
    const { logger, onRefused, snapshot } = this.#options;
    // What was just answered counts in the snapshot then.
    await nextTurn();
    const session = this.#newest();
    if (session === undefined) return;
    for (const { pod, netnsPath } of snapshot()) {
      const netnsFd = openIfThere(netnsPath);
      if (netnsFd === undefined) continue;
      tell(session, pod, netnsFd).catch((error: unknown) => {
        if (isRefusal(error)) onRefused(pod.uid, error.message);
        else logger.warn({ uid: pod.uid, error: String(error) }, 'a ztunnel was not told of a pod again');
      });
    }
  }

  async #sendSnapshot(session: ZtunnelSession): Promise<void> {
    const { logger, onChange, onRefused, snapshot } = this.#options;
    try {
      // All of it is queued at once, so that no other request comes between.
      const told = [...snapshot()].map(({ pod, netnsPath }) => {
        const netnsFd = openIfThere(netnsPath);
        if (netnsFd === undefined) return session.request({ kind: 'keep', uid: pod.uid });
        return tell(session, pod, netnsFd).catch((error: unknown) => {
          if (!isRefusal(error)) throw error;
          onRefused(pod.uid, error.message);
        });
      });
      await Promise.all([...told, session.request({ kind: 'snapshot-sent' })]);
      this.#synced.add(session);
      logger.info({ pods: told.length }, 'ztunnel connected');
      onChange({ kind: 'connected', connected: this.#synced.size });
    } catch (cause) {
      session.close(new ZdsError(`the snapshot failed: ${String(cause)}`, { code: 'protocol', cause }));
    }
  }
}

/** Tells a ztunnel of a pod; closes the descriptor. */
async function tell(session: ZtunnelSession, pod: PodInfo, netnsFd: number): Promise<void> {
  try {
    await session.request({ kind: 'add', pod }, netnsFd);
  } finally {
    closeDescriptor(netnsFd);
  }
}

function isRefusal(error: unknown): error is ZdsError {
  return error instanceof ZdsError && error.code === 'refused';
}

/** A pod whose namespace is gone is about to be deleted; until then it is left as it is. */
function openIfThere(netnsPath: string): number | undefined {
  try {
    return openNamespace(netnsPath);
  } catch {
    return undefined;
  }
}
