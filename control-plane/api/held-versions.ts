import type { DeltaDiscoveryResponse } from './gen/envoy/service/discovery/v3/discovery_pb.ts';

/** A resource that is not taken, and why. */
export interface RejectedResource {
  readonly name: string;
  readonly reason: string;
}

/** A resource as it came. */
export interface DeltaResource {
  readonly name: string;
  /** The message, without its `Any`. */
  readonly value: Uint8Array;
}

/** One response, read as far as every type is read alike. */
export interface ReadResponse {
  readonly updated: readonly (DeltaResource & { readonly version: string })[];
  readonly rejected: readonly RejectedResource[];
}

/** Names and versions that a client holds, to tell the next server what it need not send again. */
export class HeldVersions<T extends string> {
  readonly #versions = new Map<T, Map<string, string>>();

  /** Name to version, as the first request of a stream carries them; of those names only, if any are given. */
  of(type: T, names?: ReadonlySet<string>): Record<string, string> {
    const versions = [...(this.#versions.get(type) ?? [])];
    return Object.fromEntries(names ? versions.filter(([name]) => names.has(name)) : versions);
  }

  has(type: T, name: string): boolean {
    return this.#versions.get(type)?.has(name) ?? false;
  }

  hold(type: T, name: string, version: string): void {
    const versions = this.#versions.get(type) ?? new Map<string, string>();
    this.#versions.set(type, versions.set(name, version));
  }

  drop(type: T, name: string): void {
    this.#versions.get(type)?.delete(name);
  }
}

/** Reads a response, resource by resource: one that is wrong does not keep the others from being taken. */
export function readResponse(type: string, response: DeltaDiscoveryResponse): ReadResponse {
  const names = new Set<string>();
  const updated: (DeltaResource & { readonly version: string })[] = [];
  const rejected: RejectedResource[] = [];
  for (const { name, version, resource } of response.resources) {
    if (names.has(name)) rejected.push({ name, reason: 'is twice in one response' });
    else if (!resource) rejected.push({ name, reason: 'has no content' });
    else if (resource.typeUrl !== type)
      rejected.push({ name, reason: `is of type ${JSON.stringify(resource.typeUrl)}` });
    else updated.push({ name, version, value: resource.value });
    names.add(name);
  }
  return { updated, rejected };
}

/** What a NACK says, as a stock ztunnel writes it; in the order of the response. */
export function rejectionMessage(
  rejected: readonly RejectedResource[],
  response: DeltaDiscoveryResponse,
): string {
  const places = new Map(response.resources.map(({ name }, index) => [name, index]));
  const placeOf = ({ name }: RejectedResource): number => places.get(name) ?? places.size;
  return rejected
    .toSorted((a, b) => placeOf(a) - placeOf(b))
    .map(({ name, reason }) => `${name}: ${reason}`)
    .join('; ');
}
