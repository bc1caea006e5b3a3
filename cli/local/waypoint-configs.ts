import type { ServedWaypoints } from '#control-plane/served-waypoints.ts';
import { createConfigStore } from '#waypoint/config/store.ts';
import type { WaypointConfig } from '#waypoint/model.ts';
import type { WorkloadRef } from './names.ts';

/** What a waypoint makes of what it is served. */
export interface LoadedWaypoint extends WorkloadRef {
  readonly config: WaypointConfig;
}

/** Reads resources as waypoints do. What a waypoint rejects is left out here, too. */
export function loadWaypoints({ waypoints }: ServedWaypoints): readonly LoadedWaypoint[] {
  return waypoints.map(({ namespace, name, resources }) => {
    const store = createConfigStore();
    for (const [type, ofType] of Map.groupBy(resources, (resource) => resource.type)) {
      const updated = ofType.map((one) => ({ name: one.name, value: Buffer.from(one.value, 'base64') }));
      store.apply({ type, updated, removed: [] });
    }
    return { namespace, name, config: store.current() };
  });
}
