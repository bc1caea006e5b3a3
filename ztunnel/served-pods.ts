import type { Logger } from 'pino';
import type { Workload } from '#api/workload.ts';
import { closeDescriptor, openNamespace } from './capture/in-pod-sockets.ts';
import type { DnsServer } from './dns/serve.ts';
import type { LocalIdentities } from './local-identities.ts';
import { type PodDnsOptions, servePodDns } from './pod-dns.ts';
import type { PodInfo } from './worker-messages.ts';
import type { Workers } from './workers.ts';

export interface ServedPodsOptions {
  readonly workers: Workers;
  readonly identities: LocalIdentities;
  /** Absent: pods have no resolver here. */
  readonly dns?: PodDnsOptions;
  /** The workload that a pod is, as far as it is known. */
  readonly workloadOf: (pod: PodInfo) => Workload | undefined;
  readonly onStarted: () => void;
  readonly onStopped: () => void;
  readonly logger: Logger;
}

/** A pod and what has become of it. */
export interface PodState {
  readonly pod: PodInfo;
  readonly state: 'Up' | 'Pending' | 'Draining';
}

interface Serving {
  readonly pod: PodInfo;
  /** Our own: it stays open after the node agent has forgotten the pod, until its last connection has ended. */
  readonly netnsFd: number;
  readonly dns: DnsServer | undefined;
}

/** The pods whose traffic this ztunnel carries: their listeners in every worker, their resolver, their certificates. */
export class ServedPods {
  readonly #options: ServedPodsOptions;
  readonly #up = new Map<string, Serving>();
  readonly #pending = new Map<string, PodInfo>();
  readonly #draining = new Set<Serving>();

  constructor(options: ServedPodsOptions) {
    this.#options = options;
  }

  /**
   * Serves a pod; resolves when every listener is there.
   * @param netnsFd stays the caller's.
   * @throws the reason why not; it may be tried again
   */
  async add(pod: PodInfo, netnsFd: number): Promise<void> {
    const { workers, identities, logger } = this.#options;
    this.#pending.set(pod.uid, pod);
    identities.podAdded(pod);
    const ownFd = openNamespace(`/proc/self/fd/${netnsFd}`);
    let dns: DnsServer | undefined;
    try {
      dns = await this.#serveDns(pod, ownFd);
      await workers.addPod(pod, ownFd);
    } catch (error) {
      await dns?.close();
      closeDescriptor(ownFd);
      throw error;
    }
    this.#pending.delete(pod.uid);
    this.#up.set(pod.uid, { pod, netnsFd: ownFd, dns });
    this.#options.onStarted();
    logger.info({ uid: pod.uid, pod: pod.name, namespace: pod.namespace }, 'pod served');
  }

  /** Stops to take connections of a pod, or to try to. Those that are there go on; nobody waits for them. */
  remove(uid: string): void {
    const { identities, onStopped, logger } = this.#options;
    this.#pending.delete(uid);
    identities.podRemoved(uid);
    const serving = this.#up.get(uid);
    if (serving === undefined) return;
    this.#up.delete(uid);
    this.#draining.add(serving);
    onStopped();
    this.#end(serving).catch((error: unknown) => {
      logger.error({ uid, error: String(error) }, 'pod not let go of in order');
    });
  }

  /** Pods that are still to be served; others that were are not wanted any more. */
  keepPending(pods: readonly PodInfo[]): void {
    const wanted = new Set(pods.map(({ uid }) => uid));
    for (const uid of this.#pending.keys()) if (!wanted.has(uid)) this.remove(uid);
  }

  /** Closes the resolvers, once their answers are out. Connections are the workers' matter. */
  async drain(): Promise<void> {
    await Promise.all([...this.#up.values()].map(({ dns }) => dns?.close()));
  }

  states(): readonly PodState[] {
    return [
      ...[...this.#up.values()].map(({ pod }) => ({ pod, state: 'Up' as const })),
      ...[...this.#pending.values()].map((pod) => ({ pod, state: 'Pending' as const })),
      ...[...this.#draining].map(({ pod }) => ({ pod, state: 'Draining' as const })),
    ];
  }

  counts(): { readonly active: number; readonly pending: number } {
    return { active: this.#up.size, pending: this.#pending.size };
  }

  async #serveDns(pod: PodInfo, netnsFd: number): Promise<DnsServer | undefined> {
    const { dns, workloadOf } = this.#options;
    return dns && servePodDns(dns, () => workloadOf(pod), netnsFd);
  }

  async #end(serving: Serving): Promise<void> {
    const { pod, netnsFd, dns } = serving;
    try {
      await this.#options.workers.removePod(pod.uid);
      await dns?.close();
    } finally {
      this.#draining.delete(serving);
      closeDescriptor(netnsFd);
    }
    this.#options.logger.info({ uid: pod.uid, pod: pod.name, namespace: pod.namespace }, 'pod released');
  }
}
