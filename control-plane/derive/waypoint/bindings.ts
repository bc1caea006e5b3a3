import type { GatewayAddress, Workload } from '#api/workload.ts';
import type { Derived } from '../context.ts';
import { getOrAdd } from '../selectors.ts';
import type { ServiceInfo } from '../services.ts';
import type { Waypoint } from '../waypoints.ts';

/** What is bound to each waypoint, by its key. */
export interface Bindings {
  readonly services: ReadonlyMap<string, readonly ServiceInfo[]>;
  readonly workloads: ReadonlyMap<string, readonly Derived<Workload>[]>;
}

/** Reads bindings from the addresses that services and workloads are sent with; one with a canary waypoint is at both. */
export function collectBindings(
  waypoints: readonly Waypoint[],
  services: Iterable<ServiceInfo>,
  workloads: Iterable<Derived<Workload>>,
): Bindings {
  const byAddress = new Map(waypoints.map(({ address, key }) => [JSON.stringify(address), key]));
  const keysOf = (addresses: readonly (GatewayAddress | undefined)[]): Iterable<string> =>
    new Set(addresses.flatMap((address) => (address && byAddress.get(JSON.stringify(address))) ?? []));
  const boundServices = new Map<string, ServiceInfo[]>();
  for (const info of services) {
    const { waypoint, weightedWaypoints } = info.service;
    const canaries = weightedWaypoints.map(({ destination }) => destination);
    for (const key of keysOf([waypoint, ...canaries])) getOrAdd(boundServices, key, () => []).push(info);
  }
  const boundWorkloads = new Map<string, Derived<Workload>[]>();
  for (const derived of workloads)
    for (const key of keysOf([derived.resource.waypoint]))
      getOrAdd(boundWorkloads, key, () => []).push(derived);
  return { services: boundServices, workloads: boundWorkloads };
}
