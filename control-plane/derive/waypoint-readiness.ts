import type { Workload } from '#api/workload.ts';
import type { Context, Derived } from './context.ts';
import { problemAt } from './problems.ts';
import { type ServiceInfo, serviceHostname } from './services.ts';
import type { Waypoint } from './waypoints.ts';

/**
 * Reports every waypoint that something is bound to and that can not take connections yet: its Gateway has no address in
 * its status, and there is no Service of its name with a healthy workload. The binding holds all the same, so that
 * nothing goes round it.
 */
export function reportWaypoints(
  context: Context,
  services: ReadonlyMap<string, ServiceInfo>,
  workloads: readonly Derived<Workload>[],
): void {
  const used = usedAddresses(services, workloads);
  const served = new Set<string>();
  for (const { resource } of workloads)
    if (resource.status === 'HEALTHY') for (const key of resource.services.keys()) served.add(key);
  for (const waypoint of context.waypoints.byKey.values()) {
    const key = serviceOfWaypoint(context, waypoint);
    if (waypoint.hasStatus || !used.has(key) || (services.has(key) && served.has(key))) continue;
    const cause = services.has(key) ? 'no workload of it is ready' : `there is no Service ${waypoint.key}`;
    context.report(
      problemAt(waypoint.gateway, {
        path: '',
        message: `waypoint ${waypoint.key} is not ready: ${cause}`,
        severity: 'warning',
        effect: 'connections to what is bound to it are refused',
      }),
    );
  }
}

function serviceOfWaypoint(context: Context, { gateway }: Waypoint): string {
  const { name, namespace } = gateway.metadata;
  return `${namespace}/${serviceHostname(name, namespace, context.domain)}`;
}

/** Keys of the services that stand as waypoint before something. */
function usedAddresses(
  services: ReadonlyMap<string, ServiceInfo>,
  workloads: readonly Derived<Workload>[],
): ReadonlySet<string> {
  const used = new Set<string>();
  const resources = [
    ...[...services.values()].map(({ service }) => service),
    ...workloads.map(({ resource }) => resource),
  ];
  for (const { waypoint } of resources)
    if (waypoint?.destination.kind === 'hostname')
      used.add(`${waypoint.destination.namespace}/${waypoint.destination.hostname}`);
  return used;
}
