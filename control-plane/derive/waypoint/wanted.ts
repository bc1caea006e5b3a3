import type { Context } from '../context.ts';
import { isOwnWaypoint } from '../waypoints.ts';

/** A waypoint that is to run. */
export interface WantedWaypoint {
  readonly namespace: string;
  readonly name: string;
  /** It has an identity of its own, named like its Gateway. */
  readonly serviceAccount: string;
  readonly replicas: number;
}

/** Every waypoint of a class of ours, in order of its name. */
export function wantWaypoints(context: Context): readonly WantedWaypoint[] {
  return [...context.waypoints.byKey.values()].filter(isOwnWaypoint).map(({ gateway: { metadata } }) => ({
    namespace: metadata.namespace,
    name: metadata.name,
    serviceAccount: metadata.name,
    replicas: 1,
  }));
}
