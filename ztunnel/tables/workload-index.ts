import type { Ip } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';

/** Workloads by uid, by address and by name. Of several that contend for one key the winner does not depend on arrival. */
export class WorkloadIndex {
  readonly #byUid = new Map<string, Workload>();
  readonly #byAddress = new Map<string, readonly Workload[]>();
  readonly #byName = new Map<string, readonly Workload[]>();

  get(uid: string): Workload | undefined {
    return this.#byUid.get(uid);
  }

  all(): Iterable<Workload> {
    return this.#byUid.values();
  }

  /** Pods first, then HBONE, then by uid. */
  findByIp(network: string, ip: Ip): Workload | undefined {
    return this.#byAddress.get(addressKey(network, ip))?.[0];
  }

  /** `node` empty: on any node. */
  findByName(name: string, namespace: string, serviceAccount: string, node: string): Workload | undefined {
    const named = this.#byName.get(nameKey(name, namespace, serviceAccount));
    return node === '' ? named?.[0] : named?.find((workload) => workload.node === node);
  }

  /** Adds a workload; one of the same uid must have been removed before. */
  add(workload: Workload): void {
    this.#byUid.set(workload.uid, workload);
    addTo(this.#byName, nameKey(workload.name, workload.namespace, workload.serviceAccount), workload);
    for (const key of addressKeys(workload)) addTo(this.#byAddress, key, workload);
  }

  /** Returns what was removed. */
  remove(uid: string): Workload | undefined {
    const workload = this.#byUid.get(uid);
    if (workload === undefined) return undefined;
    this.#byUid.delete(uid);
    removeFrom(this.#byName, nameKey(workload.name, workload.namespace, workload.serviceAccount), workload);
    for (const key of addressKeys(workload)) removeFrom(this.#byAddress, key, workload);
    return workload;
  }
}

/** Key of an address in one network: the form the field writes, `network/ip`. */
export function addressKey(network: string, ip: Ip): string {
  return `${network}/${ip}`;
}

/** A workload on the host's network shares its address with the node and with others: it is never found by it. */
function addressKeys(workload: Workload): readonly string[] {
  if (workload.networkMode === 'HOST_NETWORK') return [];
  return [...new Set(workload.addresses)].map((ip) => addressKey(workload.network, ip));
}

function nameKey(name: string, namespace: string, serviceAccount: string): string {
  return `${namespace}/${name}/${serviceAccount}`;
}

function addTo(index: Map<string, readonly Workload[]>, key: string, workload: Workload): void {
  const others = index.get(key);
  index.set(key, others === undefined ? [workload] : [...others, workload].sort(byPreference));
}

function removeFrom(index: Map<string, readonly Workload[]>, key: string, workload: Workload): void {
  const rest = (index.get(key) ?? []).filter((other) => other !== workload);
  if (rest.length === 0) index.delete(key);
  else index.set(key, rest);
}

function byPreference(a: Workload, b: Workload): number {
  return preference(b) - preference(a) || (a.uid < b.uid ? -1 : 1);
}

function preference(workload: Workload): number {
  return (workload.uid.includes('//Pod/') ? 2 : 0) + (workload.tunnelProtocol === 'HBONE' ? 1 : 0);
}
