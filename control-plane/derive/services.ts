import { familyOf, type Ip } from '#api/address.ts';
import { type Service, serviceKey } from '#api/service.ts';
import type { ServiceEntryObject, ServiceObject, StringMap } from '../source/objects.ts';
import { protocolOfPort } from './app-protocol.ts';
import { reportBinding } from './binding-problems.ts';
import type { Context } from './context.ts';
import { balanceService } from './load-balancing.ts';
import { problemAt } from './problems.ts';
import { vipKey, wantsVip, writtenClusterIps } from './vips.ts';
import { bindingAddress, bindService, usesWaypointForIngress, weighWaypoints } from './waypoint-binding.ts';

/** A service, and what is needed to find the workloads behind it. */
export interface ServiceInfo {
  /** `namespace/hostname`. */
  readonly key: string;
  readonly service: Service;
  readonly object: ServiceObject | ServiceEntryObject;
  /** By service port. */
  readonly portNames: ReadonlyMap<number, PortName>;
  /** Labels of its workloads; absent when it selects none. */
  readonly selector?: StringMap;
}

/** What a service calls a port, and the name of the workload's port when it goes by that. */
interface PortName {
  readonly name: string;
  readonly targetName: string;
}

type IpFamilies = Service['ipFamilies'];

/** Every Kubernetes Service, oldest first; an ExternalName is only a name for something else and is left out. */
export function deriveServices(context: Context): readonly ServiceInfo[] {
  const headlessFamilies = familiesOfCluster(context.inventory.services);
  return context.inventory.services.flatMap((object) => {
    if (object.spec.type !== 'ExternalName') return [deriveService(context, object, headlessFamilies)];
    context.report(
      problemAt(object, {
        path: 'spec.type',
        message:
          'a Service of type ExternalName is not served; write a ServiceEntry with resolution DNS instead',
        severity: 'warning',
        effect: 'the name is not answered',
      }),
    );
    return [];
  });
}

/** Name of a Kubernetes Service in DNS. */
export function serviceHostname(name: string, namespace: string, domain: string): string {
  return `${name}.${namespace}.svc.${domain}`;
}

function deriveService(context: Context, object: ServiceObject, headlessFamilies: IpFamilies): ServiceInfo {
  const { metadata, spec } = object;
  const hostname = serviceHostname(metadata.name, metadata.namespace, context.domain);
  const addresses = clusterIps(context, object);
  const namespaceAnnotations = context.inventory.namespaces.get(metadata.namespace)?.metadata.annotations;
  const loadBalancing = balanceService(object, namespaceAnnotations ?? new Map());
  const service: Service = {
    kind: 'service',
    name: metadata.name,
    namespace: metadata.namespace,
    hostname,
    addresses: addresses.map((ip) => ({ network: context.network, ip })),
    ports: spec.ports.map((port) => ({
      servicePort: port.port,
      targetPort: typeof port.targetPort === 'string' ? 0 : (port.targetPort ?? port.port),
      appProtocol: protocolOfPort(port),
    })),
    subjectAltNames: [],
    ...bindingFields(context, object),
    ...(loadBalancing && { loadBalancing }),
    ipFamilies: familiesOf(object, addresses, headlessFamilies),
    canonical: true,
    visibility: 'PUBLIC',
  };
  const portNames = spec.ports.map((port): [number, PortName] => [
    port.port,
    { name: port.name, targetName: typeof port.targetPort === 'string' ? port.targetPort : '' },
  ]);
  return {
    key: serviceKey(service),
    service,
    object,
    portNames: new Map(portNames),
    ...(spec.selector && spec.selector.size > 0 && { selector: spec.selector }),
  };
}

/** The fields of a service that its waypoint decides. */
export function bindingFields(
  context: Context,
  object: ServiceObject | ServiceEntryObject,
): Pick<Service, 'waypoint' | 'weightedWaypoints' | 'ingressUseWaypoint'> {
  const binding = bindService(context.waypoints, object.metadata);
  const waypoint = bindingAddress(binding);
  const { weighted, fault } = weighWaypoints(context.waypoints, object.metadata, binding);
  reportBinding(context, object, binding, fault);
  return {
    ...(waypoint && { waypoint }),
    weightedWaypoints: weighted,
    ingressUseWaypoint: waypoint !== undefined && usesWaypointForIngress(context.waypoints, object.metadata),
  };
}

function clusterIps(context: Context, object: ServiceObject): readonly Ip[] {
  if (!wantsVip(object)) return writtenClusterIps(object);
  const given = context.vips.addresses.get(vipKey(object)) ?? [];
  if (given.length === 0)
    context.report(
      problemAt(object, {
        path: 'spec',
        message: 'no address is left for it; remove Services, or write its clusterIP',
        severity: 'error',
        effect: 'it has no address, as a headless Service',
      }),
    );
  return given;
}

function familiesOf(object: ServiceObject, addresses: readonly Ip[], headless: IpFamilies): IpFamilies {
  const { ipFamilies } = object.spec;
  if (ipFamilies.length > 1) return 'DUAL';
  if (ipFamilies.length === 1) return ipFamilies[0] === 'IPv6' ? 'IPV6_ONLY' : 'IPV4_ONLY';
  return addresses.length > 0 ? familiesOfAddresses(addresses) : headless;
}

/**
 * What a cluster writes for a Service without addresses: its first family. Cluster IPs that are written show which;
 * where there are none, the addresses are ours, of both families.
 */
function familiesOfCluster(services: readonly ServiceObject[]): IpFamilies {
  for (const service of services) {
    const [first] = writtenClusterIps(service);
    if (first !== undefined) return familyOf(first) === 4 ? 'IPV4_ONLY' : 'IPV6_ONLY';
  }
  return 'DUAL';
}

function familiesOfAddresses(addresses: readonly Ip[]): IpFamilies {
  const families = new Set(addresses.map(familyOf));
  if (families.size > 1) return 'DUAL';
  return families.has(6) ? 'IPV6_ONLY' : 'IPV4_ONLY';
}
