import { AUTHORIZATION_TYPE } from '#api/resource.ts';
import { type TimedCondition, timeConditions } from './condition-times.ts';
import type { PolicyStatus } from './derive/policy-status.ts';
import type { RouteStatus } from './derive/routes/attached.ts';
import type { MeshState } from './mesh-state.ts';
import type { RouteSplit } from './route-splits.ts';
import { formatCaller } from './serve/caller-tokens.ts';
import type { DiscoveryServer } from './serve/server.ts';
import type { SubscriptionStatus } from './serve/subscription.ts';

export interface StatusXds {
  /** Without `type.googleapis.com/`. */
  readonly type: string;
  readonly sent: number;
  readonly acked: number;
  readonly rejected: readonly { readonly name: string; readonly message: string }[];
}

/** A waypoint that is to run, or that has a token. */
export interface StatusWaypoint {
  readonly namespace: string;
  readonly name: string;
  /** Processes that are to run; 0 for one that is not wanted any more. */
  readonly replicas: number;
  /** `namespace/hostname` of the services that it stands before. */
  readonly serves: readonly string[];
  /** Processes that have a stream. */
  readonly connected: number;
  /** Those of them that have answered for all that they are to have: ready when as many as there are replicas. */
  readonly configured: number;
  /** Of the newest stream, or of the last one if there is none. */
  readonly xds: readonly StatusXds[];
}

/** A route of the Gateway API. */
export interface StatusRoute {
  readonly object: string;
  /** As in the object's own status. */
  readonly parents: readonly (Omit<RouteStatus['parents'][number], 'conditions'> & {
    readonly conditions: readonly TimedCondition[];
  })[];
  /** As it is written; what it has come to, the waypoints know. */
  readonly split: readonly RouteSplit[];
}

export interface StatusFault {
  /** `TrafficPolicy namespace/name` */
  readonly policy: string;
  readonly name: string;
  readonly targets: readonly string[];
  /** RFC 3339. */
  readonly endsAt: string;
}

/** A subscription, as it is shown. */
export function statusXds({ type, ...rest }: SubscriptionStatus): StatusXds {
  return { type: type.slice(type.indexOf('/') + 1), ...rest };
}

/** Every waypoint that is to run or has a token, sorted. */
export function statusWaypoints(
  { snapshot }: MeshState,
  discovery: Pick<DiscoveryServer, 'waypoints'>,
): readonly StatusWaypoint[] {
  const clients = new Map(
    discovery.waypoints().map((client) => [`${client.namespace}/${client.name}`, client]),
  );
  const wanted = new Map(
    snapshot.wantedWaypoints.map((waypoint) => [`${waypoint.namespace}/${waypoint.name}`, waypoint]),
  );
  return [...new Set([...wanted.keys(), ...clients.keys()])].sort().map((key) => {
    const [namespace = '', name = ''] = key.split('/');
    const instances = clients.get(key)?.instances ?? [];
    return {
      namespace,
      name,
      replicas: wanted.get(key)?.replicas ?? 0,
      serves: snapshot.waypoints.get(key)?.serves ?? [],
      connected: instances.length,
      configured: instances.filter(({ configured }) => configured).length,
      xds: (clients.get(key)?.xds ?? []).map(statusXds),
    };
  });
}

/** Every route, with what it asks for. */
export function statusRoutes({ snapshot, splits, conditionTimes }: MeshState): readonly StatusRoute[] {
  return snapshot.routeStatuses.map(({ object, parents }) => ({
    object,
    parents: parents.map((parent) => ({
      ...parent,
      conditions: timeConditions(conditionTimes, object, parent),
    })),
    split: splits.get(object) ?? [],
  }));
}

/** Every fault that is injected now. */
export function statusFaults({ snapshot }: MeshState): readonly StatusFault[] {
  return snapshot.faults.inForce.map(({ policy, name, targets, endsAtMs }) => ({
    policy,
    name,
    targets,
    endsAt: new Date(endsAtMs).toISOString(),
  }));
}

/** Which waypoints enforce a policy. */
export interface PolicyWaypoints {
  readonly enforcing: (
    policy: PolicyStatus,
  ) => readonly { /** `waypoint/NAMESPACE/NAME` */ readonly name: string; readonly hasIt: boolean }[];
}

/** By what the policy says, and by the Authorizations that the waypoints' listeners name. */
export function policyWaypoints(
  { snapshot }: MeshState,
  discovery: Pick<DiscoveryServer, 'waypoints' | 'hasAcked'>,
): PolicyWaypoints {
  const keys = new Map<string, string[]>();
  for (const [key, { authorizations }] of snapshot.waypoints)
    for (const name of authorizations) keys.set(name, [...(keys.get(name) ?? []), key]);
  const configured = new Set(
    discovery
      .waypoints()
      .filter(({ instances }) => instances.length > 0 && instances.every((instance) => instance.configured))
      .map(({ namespace, name }) => `${namespace}/${name}`),
  );
  return {
    enforcing: ({ resource, waypoints }) => {
      const naming = resource === undefined ? [] : (keys.get(resource) ?? []);
      return [...new Set([...waypoints, ...naming])].sort().map((key) => {
        const [namespace = '', name = ''] = key.split('/');
        const caller = { kind: 'waypoint', namespace, name } as const;
        const hasIt =
          resource === undefined
            ? configured.has(key)
            : discovery.hasAcked(caller, AUTHORIZATION_TYPE, resource);
        return { name: formatCaller(caller), hasIt };
      });
    },
  };
}
