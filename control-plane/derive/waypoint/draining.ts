import type { Workload } from '#api/workload.ts';
import type { Context, Derived } from '../context.ts';
import { getOrAdd } from '../selectors.ts';
import { serviceHostname } from '../services.ts';

/**
 * Says of a workload whether it is on its way out of a service: a Pod that is being deleted and still ready, or an endpoint that
 * an EndpointSlice calls terminating and serving.
 */
export function drainingWorkloads(
  context: Context,
): (derived: Derived<Workload>, service: string) => boolean {
  const slices = terminatingAddresses(context);
  return ({ resource, source }, service) => {
    if (source?.kind === 'Pod' && source.metadata.deletionTimestamp !== undefined) return source.status.ready;
    const addresses = slices.get(service);
    return addresses !== undefined && resource.addresses.some((ip) => addresses.has(ip));
  };
}

/** Addresses that serve and terminate, by service. */
function terminatingAddresses(context: Context): ReadonlyMap<string, ReadonlySet<string>> {
  const found = new Map<string, Set<string>>();
  for (const { metadata, endpoints } of context.inventory.endpointSlices) {
    const name = metadata.labels.get('kubernetes.io/service-name');
    if (name === undefined) continue;
    const key = `${metadata.namespace}/${serviceHostname(name, metadata.namespace, context.domain)}`;
    for (const { addresses, serving, terminating } of endpoints)
      if (serving && terminating) for (const ip of addresses) getOrAdd(found, key, () => new Set()).add(ip);
  }
  return found;
}
