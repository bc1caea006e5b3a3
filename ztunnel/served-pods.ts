import type { Logger } from 'pino';
import type { AwaitedClient } from './awaited-client.ts';
import { PORT_DNS } from './capture/capture.ts';
import { closeDescriptor, namespaceId, openNamespace } from './capture/in-pod-sockets.ts';
import { describeSocket } from './hand-over/descriptors.ts';
import type { ListeningSocket, Offer } from './hand-over/offer.ts';
import type { Predecessor } from './hand-over/predecessor.ts';
import type { OfferedSockets } from './hand-over/take.ts';
import type { LocalIdentities } from './local-identities.ts';
import { type PodDns, type PodDnsOptions, servePodDns } from './pod-dns.ts';
import type { PodInfo } from './worker-messages.ts';
import type { Workers } from './workers.ts';

export interface ServedPodsOptions {
  readonly workers: Workers;
  readonly identities: LocalIdentities;
  /** Absent: pods have no resolver here. */
  readonly dns?: PodDnsOptions;
  /** The ztunnel that this one replaces, whose listening sockets it shares. */
  readonly predecessor?: Predecessor;
  /** The workload that a pod is. */
  readonly clientOf: (pod: PodInfo) => AwaitedClient;
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
  readonly dns: PodDns | undefined;
}

/** The pods whose traffic this ztunnel carries: their listeners in every worker, their resolver, their certificates. */
export class ServedPods {
  readonly #options: ServedPodsOptions;
  readonly #up = new Map<string, Serving>();
  readonly #pending = new Map<string, PodInfo>();
  readonly #draining = new Set<Serving>();
  /** Pods whose sockets are being opened. */
  readonly #adding = new Map<string, Promise<unknown>>();
  /** Pods whose sockets another process may have, too. */
  readonly #offered = new WeakSet<Serving>();
  #isDraining = false;

  constructor(options: ServedPodsOptions) {
    this.#options = options;
  }

  /**
   * Serves a pod; resolves when every listener is there.
   * @param netnsFd stays the caller's.
   * @throws the reason why not; it may be tried again
   */
  async add(pod: PodInfo, netnsFd: number): Promise<void> {
    const { identities, logger } = this.#options;
    this.#pending.set(pod.uid, pod);
    identities.podAdded(pod);
    const ownFd = openNamespace(`/proc/self/fd/${netnsFd}`);
    const opening = this.#open(pod, ownFd);
    this.#adding.set(pod.uid, opening);
    try {
      const dns = await opening;
      this.#pending.delete(pod.uid);
      this.#up.set(pod.uid, { pod, netnsFd: ownFd, dns });
    } catch (error) {
      closeDescriptor(ownFd);
      throw error;
    } finally {
      this.#adding.delete(pod.uid);
    }
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
    this.#isDraining = true;
    await Promise.all([...this.#up.values()].map((serving) => this.#closeDns(serving)));
  }

  /**
   * The listening sockets of a pod, for the process that will be this one's successor; from then on they are treated as
   * shared. Waits for a pod that is about to be served. Undefined: it is not served here.
   */
  async offer(uid: string): Promise<Offer | undefined> {
    await this.#adding.get(uid)?.catch(() => undefined);
    const serving = this.#up.get(uid);
    if (serving === undefined || this.#isDraining) return undefined;
    this.#offered.add(serving);
    const descriptors = [...this.#options.workers.listening(uid), ...(serving.dns?.server.descriptors ?? [])];
    const sockets = descriptors.flatMap((fd): readonly ListeningSocket[] => {
      const description = describeSocket(fd);
      return description === undefined ? [] : [{ ...description, fd }];
    });
    return { pid: process.pid, netns: namespaceId(serving.netnsFd), sockets };
  }

  /** Why nobody takes connections of a pod here; undefined: somebody does. */
  whyNotServed(uid: string): string | undefined {
    if (this.#isDraining) return 'this process ends';
    return this.#up.has(uid) ? undefined : 'the pod is not served here';
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

  async #open(pod: PodInfo, netnsFd: number): Promise<PodDns | undefined> {
    const { predecessor } = this.#options;
    if (predecessor === undefined) return this.#openWith(pod, netnsFd, undefined);
    return predecessor.withSockets(pod.uid, namespaceId(netnsFd), (offered) =>
      this.#openWith(pod, netnsFd, offered),
    );
  }

  async #openWith(
    pod: PodInfo,
    netnsFd: number,
    offered: OfferedSockets | undefined,
  ): Promise<PodDns | undefined> {
    const { dns: dnsOptions, workers, clientOf, predecessor } = this.#options;
    const place = { netnsFd, offered: offered && only(offered, isOfDns) };
    const dns = dnsOptions && (await servePodDns(dnsOptions, clientOf(pod), place));
    try {
      const left = await workers.addPod(pod, netnsFd, offered && only(offered, isOfWorkers));
      predecessor?.left(pod.uid, [...left, ...(dns?.left ?? [])]);
      return dns;
    } catch (error) {
      await dns?.server.close(dns);
      throw error;
    }
  }

  async #closeDns(serving: Serving): Promise<void> {
    const { dns } = serving;
    await dns?.server.close({ shared: dns.shared || this.#offered.has(serving) });
  }

  async #end(serving: Serving): Promise<void> {
    const { pod, netnsFd } = serving;
    try {
      await this.#options.workers.removePod(pod.uid);
      await this.#closeDns(serving);
    } finally {
      this.#draining.delete(serving);
      closeDescriptor(netnsFd);
    }
    this.#options.logger.info({ uid: pod.uid, pod: pod.name, namespace: pod.namespace }, 'pod released');
  }
}

function only(offered: OfferedSockets, isWanted: (socket: ListeningSocket) => boolean): OfferedSockets {
  return { ...offered, sockets: offered.sockets.filter(isWanted) };
}

function isOfDns({ address }: ListeningSocket): boolean {
  return address.port === PORT_DNS;
}

function isOfWorkers(socket: ListeningSocket): boolean {
  return !isOfDns(socket);
}
