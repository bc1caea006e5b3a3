import { decodeResource } from './codec.ts';
import { ResourceError } from './faults.ts';
import type { DeltaDiscoveryResponse } from './gen/envoy/service/discovery/v3/discovery_pb.ts';
import { type Resource, type ResourceType, type ResourceUpdate, resourceName } from './resource.ts';

/** A resource that is not taken, and why. */
export interface RejectedResource {
  readonly name: string;
  readonly reason: string;
}

/** One response, read: what is taken, and what is not. */
export interface ReadResponse {
  readonly update: ResourceUpdate;
  readonly rejected: readonly RejectedResource[];
}

/** Names and versions that a client holds, to tell the next server what it need not send again. */
export class HeldResources {
  readonly #versions = new Map<ResourceType, Map<string, string>>();

  /** Name to version, as the first request of a stream carries them. */
  versions(type: ResourceType): Record<string, string> {
    return Object.fromEntries(this.#versions.get(type) ?? []);
  }

  /**
   * Reads a response, resource by resource: one that is wrong does not keep the others from being taken, and its
   * previous version stays held.
   */
  read(type: ResourceType, response: DeltaDiscoveryResponse): ReadResponse {
    const versions = this.#versions.get(type) ?? new Map<string, string>();
    this.#versions.set(type, versions);
    const updated = new Map<string, Resource>();
    const rejected: RejectedResource[] = [];
    for (const { name, version, resource } of response.resources) {
      try {
        if (updated.has(name)) throw new ResourceError('is twice in one response', { code: 'INVALID' });
        updated.set(name, readResource(type, name, resource));
        versions.set(name, version);
      } catch (error) {
        if (!(error instanceof ResourceError)) throw error;
        rejected.push({ name, reason: error.message });
      }
    }
    for (const name of response.removedResources) versions.delete(name);
    return { update: { type, updated: [...updated.values()], removed: response.removedResources }, rejected };
  }
}

/** What a NACK says, as a stock ztunnel writes it. */
export function rejectionMessage(rejected: readonly RejectedResource[]): string {
  return rejected.map(({ name, reason }) => `${name}: ${reason}`).join('; ');
}

function readResource(
  type: ResourceType,
  name: string,
  any: { readonly typeUrl: string; readonly value: Uint8Array } | undefined,
): Resource {
  if (!any) throw new ResourceError('has no content', { code: 'INVALID' });
  if (any.typeUrl !== type) {
    throw new ResourceError(`is of type ${JSON.stringify(any.typeUrl)}`, { code: 'INVALID' });
  }
  const resource = decodeResource(type, any.value);
  const ownName = resourceName(resource);
  if (ownName !== name)
    throw new ResourceError(`calls itself ${JSON.stringify(ownName)}`, { code: 'INVALID' });
  return resource;
}
