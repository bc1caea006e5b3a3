import { closeDescriptor, namespaceId } from '../capture/in-pod-sockets.ts';
import type { PodInfo } from '../worker-messages.ts';

/** What starts and stops serving pods. */
export interface PodHandler {
  /**
   * Serves a pod; resolves when its listeners are there. The descriptor of its namespace stays open, and is this module's,
   * until {@link PodHandler.onDelete} has resolved. Rejects when it cannot be served; then it is called again later.
   */
  readonly onAdd: (pod: PodInfo, netnsFd: number) => Promise<void>;
  /** Stops serving a pod that was added. */
  readonly onDelete: (uid: string) => void | Promise<void>;
}

/** The pods that a ztunnel was told of, over all its connections to node agents. Calls are served one after the other. */
export interface ServedPods {
  /**
   * Serves a pod; nothing happens when it is served in that very namespace already, and another namespace replaces it. Takes
   * the descriptor. Rejects with the handler's error; the pod is then tried again by {@link ServedPods.retry}.
   */
  readonly add: (pod: PodInfo, netnsFd: number) => Promise<void>;
  readonly delete: (uid: string) => Promise<void>;
  /** Deletes every pod but these. */
  readonly deleteAllBut: (uids: ReadonlySet<string>) => Promise<void>;
  /** Tries those again that could not be served; their uids that still cannot, with the error. */
  readonly retry: () => Promise<ReadonlyMap<string, unknown>>;
  /** Pods that could not be served so far. */
  readonly pending: () => number;
  readonly pendingPods: () => readonly PodInfo[];
}

interface Entry {
  readonly pod: PodInfo;
  readonly netnsFd: number;
  readonly namespace: string;
  readonly served: boolean;
}

/** Starts with no pods. */
export function createServedPods(handler: PodHandler): ServedPods {
  const entries = new Map<string, Entry>();
  let queue: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const result = queue.then(work);
    queue = result.catch(() => undefined);
    return result;
  };

  const drop = async (uid: string): Promise<void> => {
    const entry = entries.get(uid);
    if (entry === undefined) return;
    entries.delete(uid);
    try {
      if (entry.served) await handler.onDelete(uid);
    } finally {
      closeDescriptor(entry.netnsFd);
    }
  };
  const serve = async (entry: Entry): Promise<void> => {
    entries.set(entry.pod.uid, { ...entry, served: false });
    await handler.onAdd(entry.pod, entry.netnsFd);
    entries.set(entry.pod.uid, { ...entry, served: true });
  };
  const add = async (pod: PodInfo, netnsFd: number): Promise<void> => {
    const namespace = namespaceId(netnsFd);
    const known = entries.get(pod.uid);
    if (known?.served === true && known.namespace === namespace) {
      closeDescriptor(netnsFd);
      return;
    }
    await drop(pod.uid);
    await serve({ pod, netnsFd, namespace, served: false });
  };
  const dropAllBut = async (uids: ReadonlySet<string>): Promise<void> => {
    for (const uid of [...entries.keys()]) if (!uids.has(uid)) await drop(uid);
  };
  const unserved = (): readonly Entry[] => [...entries.values()].filter(({ served }) => !served);
  const retry = async (): Promise<ReadonlyMap<string, unknown>> => {
    const failed = new Map<string, unknown>();
    for (const entry of unserved()) {
      await serve(entry).catch((error: unknown) => failed.set(entry.pod.uid, error));
    }
    return failed;
  };
  return {
    add: (pod, netnsFd) => inTurn(() => add(pod, netnsFd)),
    delete: (uid) => inTurn(() => drop(uid)),
    deleteAllBut: (uids) => inTurn(() => dropAllBut(uids)),
    retry: () => inTurn(retry),
    pending: () => unserved().length,
    pendingPods: () => unserved().map(({ pod }) => pod),
  };
}
