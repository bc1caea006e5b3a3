import { followSecrets, type SecretsListener } from './client.ts';
import { type ControlPlaneOptions, type DeltaUpdate, subscribeDelta } from './delta-client.ts';
import {
  CLUSTER_TYPE,
  ENDPOINT_TYPE,
  type EnvoyType,
  LISTENER_TYPE,
  ROUTE_TYPE,
  SECRET_TYPE,
} from './envoy/types.ts';
import type { RejectedResource } from './held-versions.ts';
import { MESH_SECRETS } from './mesh-secrets.ts';
import { AUTHORIZATION_TYPE } from './resource.ts';

/** What a waypoint is configured with. */
export type WaypointResourceType = EnvoyType | typeof AUTHORIZATION_TYPE;

/** Of these there is everything that a waypoint is to have; the others are asked for by the names that these mention. */
export type NamedResourceType = Exclude<WaypointResourceType, typeof CLUSTER_TYPE | typeof LISTENER_TYPE>;

/** What changed of one type: updates are applied before removals. */
export type WaypointUpdate = DeltaUpdate<WaypointResourceType>;

export interface SubscribeEnvoyOptions extends ControlPlaneOptions<WaypointResourceType> {
  /**
   * Takes what changed; also called, with nothing in it, for an empty answer. Gives back what it does not take: these are
   * rejected by name, the previous versions stay in force, and the rest of the response is acknowledged. A name that
   * {@link interest} mentions no more is given as removed.
   */
  readonly onUpdate: (update: WaypointUpdate) => readonly RejectedResource[];
  /**
   * Names that listeners and clusters mention, in force and waiting to be; asked at every connect and after every update,
   * and the difference is subscribed to and unsubscribed. A name that the server does not know comes as removed.
   */
  readonly interest: () => ReadonlyMap<NamedResourceType, ReadonlySet<string>>;
  /** With it the mesh's secrets are asked for, too. */
  readonly secrets?: SecretsListener;
}

/** In the order of the first requests. */
const TYPES: readonly { readonly type: WaypointResourceType; readonly wants: 'everything' | 'names' }[] = [
  { type: CLUSTER_TYPE, wants: 'everything' },
  { type: ENDPOINT_TYPE, wants: 'names' },
  { type: SECRET_TYPE, wants: 'names' },
  { type: AUTHORIZATION_TYPE, wants: 'names' },
  { type: LISTENER_TYPE, wants: 'everything' },
  { type: ROUTE_TYPE, wants: 'names' },
];

/**
 * Keeps subscribed to a waypoint's configuration until the signal aborts: clusters and listeners, and by name what they
 * mention.
 * @throws ControlPlaneAddressError, and whatever `onUpdate` or `interest` throws, which is a defect.
 * @see subscribeDelta
 */
export function subscribeEnvoyApi(options: SubscribeEnvoyOptions): Promise<void> {
  const { onUpdate, interest, secrets, ...controlPlane } = options;
  if (!secrets) return subscribeDelta(controlPlane, { types: TYPES, onUpdate, interest });
  const takeSecrets = followSecrets(secrets);
  return subscribeDelta(controlPlane, {
    types: TYPES,
    interest: () => {
      const wanted = new Map(interest());
      return wanted.set(SECRET_TYPE, new Set([...(wanted.get(SECRET_TYPE) ?? []), ...MESH_SECRETS]));
    },
    onUpdate: (update) => {
      if (update.type !== SECRET_TYPE) return onUpdate(update);
      const isMesh = ({ name }: { readonly name: string }): boolean => MESH_SECRETS.has(name);
      const rejected = takeSecrets({
        updated: update.updated.filter(isMesh),
        removed: update.removed.filter((name) => MESH_SECRETS.has(name)),
      });
      const own = {
        ...update,
        updated: update.updated.filter((secret) => !isMesh(secret)),
        removed: update.removed.filter((name) => !MESH_SECRETS.has(name)),
      };
      return [...rejected, ...onUpdate(own)];
    },
  });
}
