import type { Ip } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import type { ServedPod } from './data-path.ts';

/** The pods that take connections now: those of a worker that are neither released nor gone. */
export class PodIndex {
  readonly #byName = new Map<string, ServedPod>();
  readonly #all = new Set<ServedPod>();

  add(pod: ServedPod): void {
    this.#all.add(pod);
    this.#byName.set(keyOf(pod.info), pod);
  }

  /** It takes no more; harmless when it is not there. */
  remove(pod: ServedPod): void {
    this.#all.delete(pod);
    const key = keyOf(pod.info);
    if (this.#byName.get(key) === pod) this.#byName.delete(key);
  }

  clear(): void {
    this.#all.clear();
    this.#byName.clear();
  }

  /** The pod of a uid, if it takes connections now. */
  ofUid(uid: string | undefined): ServedPod | undefined {
    for (const pod of this.#all) if (pod.info.uid === uid) return pod;
    return undefined;
  }

  has(pod: ServedPod): boolean {
    return this.#all.has(pod);
  }

  /** The pod that a workload of this node is, if it has that address: one of the same name may have come in its place. */
  find(workload: Workload, ip: Ip): ServedPod | undefined {
    const pod = this.#byName.get(keyOf(workload));
    if (pod === undefined || pod.info.serviceAccount !== workload.serviceAccount) return undefined;
    return pod.sockets.hasAddress(ip) ? pod : undefined;
  }
}

function keyOf({ namespace, name }: { readonly namespace: string; readonly name: string }): string {
  return `${namespace}/${name}`;
}
