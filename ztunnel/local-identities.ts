import type { ResourceUpdate } from '#api/resource.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity, type Identity } from '#certs/identity.ts';
import { identityOf } from './identity-of.ts';
import type { Tables } from './tables/tables.ts';
import type { PodInfo } from './worker-messages.ts';

export interface LocalIdentitiesOptions {
  readonly tables: Tables;
  /** This node; empty: every workload is local. */
  readonly node: string;
  /** The first workload of an identity has come. */
  readonly onWanted: (identity: Identity) => void;
  /** The last one is gone. */
  readonly onForgotten: (identity: Identity) => void;
}

/**
 * Which identities this node needs certificates for: those of its workloads that speak HBONE, and of the pods that it
 * serves. Certificates are asked for before the first connection, and kept for the last workload that needs them.
 */
export class LocalIdentities {
  readonly #options: LocalIdentitiesOptions;
  /** What each local workload counts for. */
  readonly #counted = new Map<string, Identity>();
  readonly #uses = new Map<string, number>();
  readonly #pods = new Map<string, PodInfo>();

  constructor(options: LocalIdentitiesOptions) {
    this.#options = options;
  }

  /** The tables have taken this update. */
  afterUpdate(update: ResourceUpdate): void {
    for (const resource of update.updated) if (resource.kind === 'workload') this.#recount(resource.uid);
    for (const name of update.removed) this.#recount(name);
  }

  podAdded(pod: PodInfo): void {
    this.#pods.set(pod.uid, pod);
    this.#recountPod(pod);
  }

  podRemoved(uid: string): void {
    const pod = this.#pods.get(uid);
    if (pod === undefined) return;
    this.#pods.delete(uid);
    this.#recountPod(pod);
  }

  /** Whether some workload here has it. */
  isLocal(identity: string): boolean {
    return this.#uses.has(identity);
  }

  /** Workloads that count, each with what it has in the tables now. */
  *workloads(): Iterable<Workload> {
    for (const uid of this.#counted.keys()) {
      const workload = this.#options.tables.workloadByUid(uid);
      if (workload !== undefined) yield workload;
    }
  }

  #recountPod({ name, namespace, serviceAccount }: PodInfo): void {
    const { tables, node } = this.#options;
    const workload = tables.workloadByName(name, namespace, serviceAccount, node);
    if (workload !== undefined) this.#recount(workload.uid);
  }

  #recount(uid: string): void {
    const workload = this.#options.tables.workloadByUid(uid);
    const now = workload !== undefined && this.#isServed(workload) ? identityOf(workload) : undefined;
    const before = this.#counted.get(uid);
    if (now === undefined) this.#counted.delete(uid);
    else this.#counted.set(uid, now);
    if (now !== undefined) this.#change(now, 1);
    if (before !== undefined) this.#change(before, -1);
  }

  #isServed({ node, tunnelProtocol, nativeTunnel, name, namespace, serviceAccount }: Workload): boolean {
    if (this.#options.node !== '' && node !== this.#options.node) return false;
    if (tunnelProtocol === 'HBONE' || nativeTunnel) return true;
    return [...this.#pods.values()].some(
      (pod) => pod.name === name && pod.namespace === namespace && pod.serviceAccount === serviceAccount,
    );
  }

  #change(identity: Identity, by: 1 | -1): void {
    const key = formatIdentity(identity);
    const before = this.#uses.get(key) ?? 0;
    const after = before + by;
    if (after > 0) this.#uses.set(key, after);
    else this.#uses.delete(key);
    if (before === 0) this.#options.onWanted(identity);
    if (after === 0) this.#options.onForgotten(identity);
  }
}
