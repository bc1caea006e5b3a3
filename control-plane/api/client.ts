import { decodeResource } from './codec.ts';
import { type ControlPlaneOptions, type DeltaUpdate, subscribeDelta } from './delta-client.ts';
import { SECRET_TYPE } from './envoy/types.ts';
import { ResourceError } from './faults.ts';
import type { RejectedResource } from './held-versions.ts';
import {
  decodeRevoked,
  decodeRoots,
  MESH_SECRETS,
  REVOKED_SECRET,
  type RevokedNames,
  ROOTS_SECRET,
  SecretError,
} from './mesh-secrets.ts';
import {
  ADDRESS_TYPE,
  AUTHORIZATION_TYPE,
  type Resource,
  type ResourceType,
  type ResourceUpdate,
  resourceName,
} from './resource.ts';

/** What a ztunnel asks for. */
export type ZtunnelResourceType = ResourceType | typeof SECRET_TYPE;

export interface SubscribeOptions extends ControlPlaneOptions<ZtunnelResourceType> {
  /** What changed; also called, with nothing in it, for an empty first answer. Acknowledged when it returns. */
  readonly onUpdate: (update: ResourceUpdate) => void;
  /** With it the mesh's secrets are asked for, after everything else. */
  readonly secrets?: SecretsListener;
}

/** Who takes the mesh's secrets; they are acknowledged when it returns. */
export interface SecretsListener {
  /** The roots that verify peers (PEM), or that the server has none; whenever it answers for secrets, changed or not. */
  readonly onRoots: (rootsPem: string | undefined) => void;
  /** Who may not be a peer any more; undefined: the server has no such list. What was said last holds, also while it is away. */
  readonly onRevoked: (revoked: RevokedNames | undefined) => void;
}

const SECRETS: ReadonlyMap<ZtunnelResourceType, ReadonlySet<string>> = new Map([[SECRET_TYPE, MESH_SECRETS]]);

/**
 * Keeps subscribed to everything of the workload API until the signal aborts. The order of the first requests is a stock
 * ztunnel's. A resource that is wrong is rejected by itself.
 * @throws ControlPlaneAddressError, and whatever `onUpdate` throws, which is a defect.
 * @see subscribeDelta
 */
export function subscribeWorkloadApi(options: SubscribeOptions): Promise<void> {
  const { onUpdate, secrets, ...controlPlane } = options;
  const takeSecrets = secrets && followSecrets(secrets);
  return subscribeDelta<ZtunnelResourceType>(controlPlane, {
    types: [
      { type: ADDRESS_TYPE, wants: 'everything' },
      { type: AUTHORIZATION_TYPE, wants: 'everything' },
      ...(takeSecrets ? ([{ type: SECRET_TYPE, wants: 'names' }] as const) : []),
    ],
    interest: () => SECRETS,
    onUpdate: (update) => {
      const { type, updated, removed } = update;
      if (type === SECRET_TYPE) return takeSecrets?.(update) ?? [];
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

/** Takes secrets by what they are called; what is none is rejected, and the one before stays. */
export function followSecrets({
  onRoots,
  onRevoked,
}: SecretsListener): (update: Omit<DeltaUpdate<string>, 'type'>) => readonly RejectedResource[] {
  let roots: string | undefined;
  return ({ updated, removed }) => {
    const rejected: RejectedResource[] = [];
    if (removed.includes(ROOTS_SECRET)) roots = undefined;
    if (removed.includes(REVOKED_SECRET)) onRevoked(undefined);
    for (const { name, value } of updated) {
      try {
        if (name === ROOTS_SECRET) roots = decodeRoots(value);
        if (name === REVOKED_SECRET) onRevoked(decodeRevoked(value));
      } catch (error) {
        if (!(error instanceof SecretError)) throw error;
        rejected.push({ name, reason: error.message });
      }
    }
    onRoots(roots);
    return rejected;
  };
}

function readResource(type: ResourceType, name: string, value: Uint8Array): Resource {
  const resource = decodeResource(type, value);
  const ownName = resourceName(resource);
  if (ownName !== name)
    throw new ResourceError(`calls itself ${JSON.stringify(ownName)}`, { code: 'INVALID' });
  return resource;
}
