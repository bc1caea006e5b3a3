import { create } from '@bufbuild/protobuf';
import { ipToBytes } from './address.ts';
import {
  decodeGatewayAddress,
  decodeIp,
  decodePort,
  decodeRequired,
  encodeGatewayAddress,
  enumCodec,
} from './codec-fields.ts';
import type { Faults } from './faults.ts';
import {
  AppProtocol as AppProtocols,
  IPFamilies,
  LoadBalancing_HealthPolicy,
  LoadBalancing_Mode,
  LoadBalancing_Scope,
  LoadBalancingSchema,
  NetworkAddressSchema,
  PortSchema,
  Service_Visibility,
  ServiceSchema,
  WeightedWaypointSchema,
  type LoadBalancing as WireLoadBalancing,
  type NetworkAddress as WireNetworkAddress,
  type Service as WireService,
  type WeightedWaypoint as WireWeightedWaypoint,
} from './gen/istio/workload/workload_pb.ts';
import type { AppProtocol, LoadBalancing, NetworkAddress, Service, WeightedWaypoint } from './service.ts';

const appProtocols = enumCodec('UNKNOWN', AppProtocols);
const ipFamilies = enumCodec('AUTOMATIC', IPFamilies);
// UNSPECIFIED_SCOPE is missing on purpose: a preference for nothing in particular is a mistake.
const scopes = enumCodec('NODE', {
  REGION: LoadBalancing_Scope.REGION,
  ZONE: LoadBalancing_Scope.ZONE,
  SUBZONE: LoadBalancing_Scope.SUBZONE,
  NODE: LoadBalancing_Scope.NODE,
  CLUSTER: LoadBalancing_Scope.CLUSTER,
  NETWORK: LoadBalancing_Scope.NETWORK,
});
const modes = enumCodec('STRICT', {
  UNSPECIFIED: LoadBalancing_Mode.UNSPECIFIED_MODE,
  STRICT: LoadBalancing_Mode.STRICT,
  FAILOVER: LoadBalancing_Mode.FAILOVER,
  PASSTHROUGH: LoadBalancing_Mode.PASSTHROUGH,
});
const healthPolicies = enumCodec('ONLY_HEALTHY', LoadBalancing_HealthPolicy);

/** The message of a service. */
export function encodeService(service: Service): WireService {
  return create(ServiceSchema, {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    addresses: service.addresses.map(encodeNetworkAddress),
    ports: service.ports.map(({ servicePort, targetPort, appProtocol }) =>
      create(PortSchema, { servicePort, targetPort, appProtocol: appProtocols.encode(appProtocol) }),
    ),
    subjectAltNames: [...service.subjectAltNames],
    waypoint: service.waypoint && encodeGatewayAddress(service.waypoint),
    weightedWaypoints: service.weightedWaypoints.map(({ destination, weight }) =>
      create(WeightedWaypointSchema, { destination: encodeGatewayAddress(destination), weight }),
    ),
    loadBalancing: service.loadBalancing && encodeLoadBalancing(service.loadBalancing),
    ipFamilies: ipFamilies.encode(service.ipFamilies),
    canonical: service.canonical,
    ingressUseWaypoint: service.ingressUseWaypoint,
    visibility: Service_Visibility[service.visibility],
  });
}

/** The service; what is wrong goes to `faults`. An unknown visibility is PUBLIC, as a stock ztunnel has it. */
export function decodeService(wire: WireService, faults: Faults): Service {
  return {
    kind: 'service',
    name: wire.name,
    namespace: decodeRequired(wire.namespace, 'service.namespace', faults),
    hostname: decodeRequired(wire.hostname, 'service.hostname', faults),
    addresses: wire.addresses.map((address, i) =>
      decodeNetworkAddress(address, `service.addresses[${i}]`, faults),
    ),
    ports: wire.ports.map((port, i) => ({
      servicePort: decodePort(port.servicePort, 0, `service.ports[${i}].servicePort`, faults),
      targetPort: decodePort(port.targetPort, 0, `service.ports[${i}].targetPort`, faults),
      appProtocol: decodeAppProtocol(port.appProtocol, `service.ports[${i}].appProtocol`, faults),
    })),
    subjectAltNames: wire.subjectAltNames,
    ...(wire.waypoint && { waypoint: decodeGatewayAddress(wire.waypoint, 'service.waypoint', faults) }),
    weightedWaypoints: wire.weightedWaypoints.map((waypoint, i) =>
      decodeWeightedWaypoint(waypoint, `service.weightedWaypoints[${i}]`, faults),
    ),
    ...(wire.loadBalancing && { loadBalancing: decodeLoadBalancing(wire.loadBalancing, faults) }),
    ipFamilies: ipFamilies.decode(wire.ipFamilies, 'service.ipFamilies', faults),
    canonical: wire.canonical,
    ingressUseWaypoint: wire.ingressUseWaypoint,
    visibility: wire.visibility === Service_Visibility.NAMESPACE ? 'NAMESPACE' : 'PUBLIC',
  };
}

/** A port's protocol. */
export function decodeAppProtocol(value: number, path: string, faults: Faults): AppProtocol {
  return appProtocols.decode(value, path, faults);
}

function encodeNetworkAddress(address: NetworkAddress): WireNetworkAddress {
  return create(NetworkAddressSchema, {
    network: address.network,
    address: ipToBytes(address.ip),
    ...(address.length !== undefined && { length: address.length }),
  });
}

/** A prefix as long as the address is one host and left out. */
function decodeNetworkAddress(wire: WireNetworkAddress, path: string, faults: Faults): NetworkAddress {
  const ip = decodeIp(wire.address, `${path}.address`, faults);
  const bits = wire.address.length * 8;
  if (wire.length === undefined || wire.length === bits) return { network: wire.network, ip };
  const length = wire.length - (bits - ipToBytes(ip).length * 8); // an IPv4-mapped prefix counts from bit 96
  if (wire.length > bits || length < 0) faults.add(`${path}.length`, `${wire.length} is not a prefix length`);
  return { network: wire.network, ip, length };
}

function encodeLoadBalancing(loadBalancing: LoadBalancing): WireLoadBalancing {
  return create(LoadBalancingSchema, {
    routingPreference: loadBalancing.routingPreference.map(scopes.encode),
    mode: modes.encode(loadBalancing.mode),
    healthPolicy: healthPolicies.encode(loadBalancing.healthPolicy),
  });
}

function decodeLoadBalancing(wire: WireLoadBalancing, faults: Faults): LoadBalancing {
  const path = 'service.loadBalancing';
  return {
    routingPreference: wire.routingPreference.map((scope, i) =>
      scopes.decode(scope, `${path}.routingPreference[${i}]`, faults),
    ),
    mode: modes.decode(wire.mode, `${path}.mode`, faults),
    healthPolicy: healthPolicies.decode(wire.healthPolicy, `${path}.healthPolicy`, faults),
  };
}

function decodeWeightedWaypoint(wire: WireWeightedWaypoint, path: string, faults: Faults): WeightedWaypoint {
  if (wire.destination) {
    const destination = decodeGatewayAddress(wire.destination, `${path}.destination`, faults);
    return { destination, weight: wire.weight };
  }
  faults.add(`${path}.destination`, 'is missing');
  const destination = {
    destination: { kind: 'hostname', namespace: '', hostname: '' },
    hboneMtlsPort: 0,
  } as const;
  return { destination, weight: wire.weight };
}
