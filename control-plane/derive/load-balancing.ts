import type { LoadBalancing, LoadBalancingScope } from '#api/service.ts';
import type { ServiceEntryObject, ServiceObject, StringMap } from '../source/objects.ts';

/** Annotation of a Service, ServiceEntry or Namespace: which endpoints are preferred. */
export const TRAFFIC_DISTRIBUTION = 'networking.istio.io/traffic-distribution';

const SAME_ZONE: readonly LoadBalancingScope[] = ['NETWORK', 'REGION', 'ZONE'];
const SAME_NODE: readonly LoadBalancingScope[] = ['NETWORK', 'REGION', 'ZONE', 'SUBZONE', 'NODE'];

/** What `spec.trafficDistribution` takes; the annotation takes the same without regard to case. */
const DISTRIBUTIONS: ReadonlyMap<string, readonly LoadBalancingScope[]> = new Map([
  ['PreferClose', SAME_ZONE],
  ['PreferSameZone', SAME_ZONE],
  ['PreferSameNode', SAME_NODE],
]);
const ANNOTATED: ReadonlyMap<string, readonly LoadBalancingScope[]> = new Map(
  [...DISTRIBUTIONS].map(([name, scopes]) => [name.toLowerCase(), scopes]),
);

/** How the endpoints of a Kubernetes Service are chosen; nothing where it says nothing. */
export function balanceService(
  service: ServiceObject,
  namespaceAnnotations: StringMap,
): LoadBalancing | undefined {
  const healthPolicy = service.spec.publishNotReadyAddresses ? 'ALLOW_ALL' : 'ONLY_HEALTHY';
  if (service.spec.internalTrafficPolicy === 'Local')
    return { routingPreference: ['NODE'], mode: 'STRICT', healthPolicy };
  const scopes =
    DISTRIBUTIONS.get(service.spec.trafficDistribution ?? '') ??
    annotatedScopes(service.metadata.annotations, namespaceAnnotations);
  if (scopes !== undefined) return { routingPreference: scopes, mode: 'FAILOVER', healthPolicy };
  return healthPolicy === 'ALLOW_ALL'
    ? { routingPreference: [], mode: 'UNSPECIFIED', healthPolicy }
    : undefined;
}

/** How the endpoints of a ServiceEntry are chosen; with resolution NONE traffic goes where it was sent. */
export function balanceServiceEntry(
  entry: ServiceEntryObject,
  namespaceAnnotations: StringMap,
): LoadBalancing | undefined {
  if (entry.spec.resolution === 'NONE')
    return { routingPreference: [], mode: 'PASSTHROUGH', healthPolicy: 'ALLOW_ALL' };
  const scopes = annotatedScopes(entry.metadata.annotations, namespaceAnnotations);
  return scopes && { routingPreference: scopes, mode: 'FAILOVER', healthPolicy: 'ONLY_HEALTHY' };
}

/** The object's annotation, an unknown value included, hides the namespace's. */
function annotatedScopes(own: StringMap, inherited: StringMap): readonly LoadBalancingScope[] | undefined {
  const value = own.get(TRAFFIC_DISTRIBUTION) || (inherited.get(TRAFFIC_DISTRIBUTION) ?? '');
  return ANNOTATED.get(value.toLowerCase());
}
