import { ENVOY_TYPES, type EnvoyType } from '#api/envoy/types.ts';
import type { MeshState } from './mesh-state.ts';
import { resourcesOf } from './serve/served-view.ts';
import { formatPosition } from './source/objects.ts';

/** `GET /waypoints`: what each waypoint is served, to be explained and counted by others. */
export interface ServedWaypoints {
  readonly waypoints: readonly {
    readonly namespace: string;
    readonly name: string;
    readonly resources: readonly {
      readonly type: EnvoyType;
      readonly name: string;
      /** The message in base64. */
      readonly value: string;
      /** Where it was written; null for what nobody wrote. */
      readonly origin: { readonly object: string; readonly position: string } | null;
    }[];
  }[];
  /** Where the rules of each route are written, in their order. */
  readonly rules: readonly { readonly object: string; readonly positions: readonly string[] }[];
}

/** Everything that waypoints are served, in the order in which it is pushed. */
export function servedWaypoints({ served, snapshot, rulePositions }: MeshState): ServedWaypoints {
  const waypoints = [...served.waypoints].map(([key, view]) => {
    const [namespace = '', name = ''] = key.split('/');
    const origins = snapshot.waypoints.get(key)?.origins;
    const resources = ENVOY_TYPES.flatMap((type) =>
      [...resourcesOf(view, type).values()].map((resource) => {
        const origin = origins?.get(type)?.get(resource.name);
        return {
          type,
          name: resource.name,
          value: Buffer.from(resource.value).toString('base64'),
          origin: origin ? { object: origin.object, position: formatPosition(origin.position) } : null,
        };
      }),
    );
    return { namespace, name, resources };
  });
  const rules = [...rulePositions].map(([object, positions]) => ({
    object,
    positions: positions.map(formatPosition),
  }));
  return { waypoints, rules };
}
