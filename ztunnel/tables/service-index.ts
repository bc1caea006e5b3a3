import { familyOf, type Ip, ipToBigInt } from '#api/address.ts';
import { type NetworkAddress, type Service, serviceKey } from '#api/service.ts';
import { addressKey } from './workload-index.ts';

/** Services by key, hostname, VIP and range of VIPs. */
export class ServiceIndex {
  readonly #byKey = new Map<string, Service>();
  readonly #byHostname = new Map<string, readonly Service[]>();
  readonly #byVip = new Map<string, readonly Service[]>();
  /** Prefix lengths in use, by network and family; the services of a prefix, by network, length and leading bits. */
  readonly #prefixLengths = new Map<string, Map<number, number>>();
  readonly #byPrefix = new Map<string, readonly Service[]>();

  get(key: string): Service | undefined {
    return this.#byKey.get(key);
  }

  all(): Iterable<Service> {
    return this.#byKey.values();
  }

  /** All of that hostname (lower case), by key. */
  withHostname(hostname: string): readonly Service[] {
    return this.#byHostname.get(hostname) ?? [];
  }

  findByVip(network: string, ip: Ip, clientNamespace: string): Service | undefined {
    const exact = this.#byVip.get(addressKey(network, ip));
    const best = exact && preferredService(exact, clientNamespace);
    return best ?? this.#findByRange(network, ip, clientNamespace);
  }

  /** Adds a service; one of the same key must have been removed before. */
  add(service: Service): void {
    this.#byKey.set(serviceKey(service), service);
    addTo(this.#byHostname, service.hostname.toLowerCase(), service);
    for (const vip of hosts(service)) addTo(this.#byVip, vip, service);
    for (const range of ranges(service)) {
      addTo(this.#byPrefix, prefixKey(range.network, range.ip, range.length), service);
      this.#countLength(range, 1);
    }
  }

  remove(key: string): void {
    const service = this.#byKey.get(key);
    if (service === undefined) return;
    this.#byKey.delete(key);
    removeFrom(this.#byHostname, service.hostname.toLowerCase(), service);
    for (const vip of hosts(service)) removeFrom(this.#byVip, vip, service);
    for (const range of ranges(service)) {
      removeFrom(this.#byPrefix, prefixKey(range.network, range.ip, range.length), service);
      this.#countLength(range, -1);
    }
  }

  /** Same namespace beats a longer prefix, which beats `canonical`. */
  #findByRange(network: string, ip: Ip, clientNamespace: string): Service | undefined {
    const lengths = this.#prefixLengths.get(rangeKey(network, ip));
    if (lengths === undefined) return undefined;
    let best: { readonly service: Service; readonly rank: number } | undefined;
    for (const length of lengths.keys()) {
      const services = this.#byPrefix.get(prefixKey(network, ip, length)) ?? [];
      const service = preferredService(services, clientNamespace);
      if (service === undefined) continue;
      const rank = (service.namespace === clientNamespace ? 1000 : 0) + length;
      if (best === undefined || rank > best.rank) best = { service, rank };
    }
    return best?.service;
  }

  #countLength(range: Range, change: 1 | -1): void {
    const key = rangeKey(range.network, range.ip);
    const lengths = this.#prefixLengths.get(key) ?? new Map<number, number>();
    const count = (lengths.get(range.length) ?? 0) + change;
    if (count > 0) lengths.set(range.length, count);
    else lengths.delete(range.length);
    if (lengths.size > 0) this.#prefixLengths.set(key, lengths);
    else this.#prefixLengths.delete(key);
  }
}

/**
 * The one of several services of a VIP or hostname that a client of that namespace means: of those it may see, one of
 * its own namespace, then the canonical one, then one of the preferred namespace, then the first.
 */
export function preferredService(
  services: readonly Service[],
  clientNamespace: string,
  preferredNamespace?: string,
): Service | undefined {
  const visible = services.filter(
    (service) => service.visibility !== 'NAMESPACE' || service.namespace === clientNamespace,
  );
  return (
    visible.find((service) => service.namespace === clientNamespace) ??
    visible.find((service) => service.canonical) ??
    visible.find((service) => service.namespace === preferredNamespace) ??
    visible[0]
  );
}

type Range = Required<NetworkAddress>;

function hosts(service: Service): readonly string[] {
  const vips = service.addresses.filter((vip) => !isRange(vip));
  return [...new Set(vips.map((vip) => addressKey(vip.network, vip.ip)))];
}

function ranges(service: Service): readonly Range[] {
  return service.addresses.filter(isRange);
}

function isRange(address: NetworkAddress): address is Range {
  return address.length !== undefined && address.length < addressBits(address.ip);
}

function addressBits(ip: Ip): number {
  return familyOf(ip) === 4 ? 32 : 128;
}

function rangeKey(network: string, ip: Ip): string {
  return `${network}/${familyOf(ip)}`;
}

function prefixKey(network: string, ip: Ip, length: number): string {
  return `${rangeKey(network, ip)}/${length}/${ipToBigInt(ip) >> BigInt(addressBits(ip) - length)}`;
}

function addTo(index: Map<string, readonly Service[]>, key: string, service: Service): void {
  const others = index.get(key);
  index.set(key, others === undefined ? [service] : [...others, service].sort(byServiceKey));
}

function removeFrom(index: Map<string, readonly Service[]>, key: string, service: Service): void {
  const rest = (index.get(key) ?? []).filter((other) => other !== service);
  if (rest.length === 0) index.delete(key);
  else index.set(key, rest);
}

function byServiceKey(a: Service, b: Service): number {
  return serviceKey(a) < serviceKey(b) ? -1 : 1;
}
