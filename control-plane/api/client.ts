import { decodeResource } from './codec.ts';
import { type ControlPlaneOptions, subscribeDelta } from './delta-client.ts';
import { ResourceError } from './faults.ts';
import type { RejectedResource } from './held-versions.ts';
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type Resource,
  type ResourceType,
  type ResourceUpdate,
  resourceName,
} from './resource.ts';

export interface SubscribeOptions extends ControlPlaneOptions<ResourceType> {
  /** What changed; also called, with nothing in it, for an empty first answer. Acknowledged when it returns. */
  readonly onUpdate: (update: ResourceUpdate) => void;
}

/**
 * Keeps subscribed to everything of the workload API until the signal aborts. The order of the first requests is a stock
 * ztunnel's. A resource that is wrong is rejected by itself.
 * @throws ControlPlaneAddressError, and whatever `onUpdate` throws, which is a defect.
 * @see subscribeDelta
 */
export function subscribeWorkloadApi(options: SubscribeOptions): Promise<void> {
  const { onUpdate, ...controlPlane } = options;
  return subscribeDelta(controlPlane, {
    types: [
      { type: ADDRESS_TYPE, wants: 'everything' },
      { type: AUTHORIZATION_TYPE, wants: 'everything' },
    ],
    onUpdate: ({ type, updated, removed }) => {
      const resources: Resource[] = [];
      const rejected: RejectedResource[] = [];
      for (const { name, value } of updated) {
        try {
          resources.push(readResource(type, name, value));
        } catch (error) {
          if (!(error instanceof ResourceError)) throw error;
          rejected.push({ name, reason: error.message });
        }
      }
      onUpdate({ type, updated: resources, removed });
      return rejected;
    },
  });
}

function readResource(type: ResourceType, name: string, value: Uint8Array): Resource {
  const resource = decodeResource(type, value);
  const ownName = resourceName(resource);
  if (ownName !== name)
    throw new ResourceError(`calls itself ${JSON.stringify(ownName)}`, { code: 'INVALID' });
  return resource;
}
