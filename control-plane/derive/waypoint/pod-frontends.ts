import type { Workload } from '#api/workload.ts';
import type { Derived } from '../context.ts';
import { buildCluster } from './clusters.ts';
import { buildPodEndpoint } from './endpoints.ts';
import type { RouteFaults } from './faults.ts';
import { forwardAll } from './frontends.ts';
import { buildListener } from './listeners.ts';
import type { Built } from './messages.ts';
import { podClusterName, podListenerName } from './names.ts';
import type { ListenerPolicy } from './policy-book.ts';
import { buildRoutes } from './route-configurations.ts';

/** What is the same for all workloads at a waypoint. */
export interface PodSetting {
  readonly policy: ListenerPolicy;
  readonly faults: RouteFaults;
}

/**
 * The resources of a workload that is reached through a waypoint by its own addresses: for each a listener for all ports, and a
 * cluster of the workload alone, at whatever port was asked for.
 */
export function buildPodFrontends(
  { policy, faults }: PodSetting,
  { resource: workload, origin }: Derived<Workload>,
): readonly Built[] {
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
      buildListener({ name, kind: 'auto', metadata, chains: [tcp], origin }),
      buildRoutes(name, [forwardAll(cluster, [], faults)], origin),
      buildCluster({
        name: cluster,
        metadata: { backend: `${workload.namespace}/${workload.name}`, service: workload.uid },
        protocol: 'UNKNOWN',
        balancing: 'least-request',
        origin,
      }),
      buildPodEndpoint(cluster, { workload, draining: false }, ip, origin),
    ];
  });
}
