import type { Workload } from '#api/workload.ts';
import type { Derived } from '../context.ts';
import { draftCluster } from './clusters.ts';
import { draftPodEndpoint } from './endpoints.ts';
import type { RouteFaults } from './faults.ts';
import { forwardAll } from './frontends.ts';
import { draftListener } from './listeners.ts';
import type { Draft } from './messages.ts';
import { podClusterName, podListenerName } from './names.ts';
import type { ListenerPolicy } from './policy-book.ts';
import { draftRoutes } from './route-configurations.ts';

/** What is the same for all workloads at a waypoint. */
export interface PodSetting {
  readonly policy: ListenerPolicy;
  readonly faults: RouteFaults;
}

/**
 * The resources of a workload that is reached through a waypoint by its own addresses: for each a listener for all ports, and a
 * cluster of the workload alone, at whatever port was asked for.
 */
export function draftPodFrontends(
  { policy, faults }: PodSetting,
  { resource: workload, origin }: Derived<Workload>,
): readonly Draft[] {
  return workload.addresses.flatMap((ip) => {
    const name = podListenerName(ip);
    const cluster = podClusterName(ip);
    const metadata = { service: workload.uid, addresses: [ip], port: 0, ...policy };
    const tcp = {
      name: `${name}|tcp`,
      serverNames: [],
      clusters: [{ name: cluster, weight: 1 }],
      metadata: {},
    };
    return [
      draftListener({ name, kind: 'auto', metadata, chains: [tcp], origin }),
      draftRoutes(name, [forwardAll(cluster, [], faults)], origin),
      draftCluster({
        name: cluster,
        metadata: { backend: `${workload.namespace}/${workload.name}`, service: workload.uid },
        protocol: 'UNKNOWN',
        balancing: 'least-request',
        origin,
      }),
      draftPodEndpoint(cluster, { workload, draining: false }, ip, origin),
    ];
  });
}
