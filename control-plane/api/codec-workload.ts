import { create } from '@bufbuild/protobuf';
import { type Any, anyPack, anyUnpack, StringValueSchema } from '@bufbuild/protobuf/wkt';
import { ipToBytes } from './address.ts';
import {
  decodeGatewayAddress,
  decodeIp,
  decodePort,
  decodeRequired,
  encodeGatewayAddress,
  enumCodec,
} from './codec-fields.ts';
import { decodeAppProtocol } from './codec-service.ts';
import type { Faults } from './faults.ts';
import {
  ApplicationTunnel_Protocol,
  ApplicationTunnelSchema,
  ExtensionSchema,
  LocalitySchema,
  NetworkMode,
  type PortList,
  PortListSchema,
  PortSchema,
  TunnelProtocol,
  type ApplicationTunnel as WireApplicationTunnel,
  type Extension as WireExtension,
  type Workload as WireWorkload,
  WorkloadSchema,
  WorkloadStatus,
  WorkloadType,
} from './gen/istio/workload/workload_pb.ts';
import type { ApplicationTunnel, Locality, PortMapping, Workload } from './workload.ts';

/** What an empty field on the wire stands for. */
const DEFAULT_TRUST_DOMAIN = 'cluster.local';
const DEFAULT_SERVICE_ACCOUNT = 'default';
const DEFAULT_CLUSTER_ID = 'Kubernetes';

// LEGACY_ISTIO_MTLS is missing on purpose: nothing here speaks it.
const tunnelProtocols = enumCodec('NONE', {
  NONE: TunnelProtocol.NONE,
  HBONE: TunnelProtocol.HBONE,
});
const workloadTypes = enumCodec('DEPLOYMENT', WorkloadType);
const statuses = enumCodec('UNHEALTHY', WorkloadStatus);
const networkModes = enumCodec('STANDARD', NetworkMode);
const applicationProtocols = enumCodec('NONE', ApplicationTunnel_Protocol);

/** Extensions of ours, with a StringValue; a stock ztunnel passes over extensions. */
const SAME_NODE = 'tulle.dev/same-node';
const SPLICE = 'tulle.dev/splice';

/** The message; a service's ports are sorted by service, so that equal workloads give equal bytes. */
export function encodeWorkload(workload: Workload): WireWorkload {
  const services = [...workload.services].sort(([a], [b]) => (a < b ? -1 : 1));
  return create(WorkloadSchema, {
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    addresses: workload.addresses.map(ipToBytes),
    hostname: workload.hostname,
    network: workload.network,
    tunnelProtocol: tunnelProtocols.encode(workload.tunnelProtocol),
    trustDomain: workload.trustDomain === DEFAULT_TRUST_DOMAIN ? '' : workload.trustDomain,
    serviceAccount: workload.serviceAccount,
    waypoint: workload.waypoint && encodeGatewayAddress(workload.waypoint),
    networkGateway: workload.networkGateway && encodeGatewayAddress(workload.networkGateway),
    node: workload.node,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    workloadType: workloadTypes.encode(workload.workloadType),
    workloadName: workload.workloadName,
    nativeTunnel: workload.nativeTunnel,
    applicationTunnel: workload.applicationTunnel && encodeApplicationTunnel(workload.applicationTunnel),
    services: Object.fromEntries(services.map(([key, ports]) => [key, encodePorts(ports)])),
    authorizationPolicies: [...workload.authorizationPolicies],
    status: statuses.encode(workload.status),
    clusterId: workload.clusterId,
    locality: isKnown(workload.locality) ? create(LocalitySchema, workload.locality) : undefined,
    networkMode: networkModes.encode(workload.networkMode),
    capacity: workload.capacity === 1 ? undefined : workload.capacity,
    extensions: encodeExtensions(workload),
  });
}

/** The workload with its defaults filled in; what is wrong goes to `faults`. */
export function decodeWorkload(wire: WireWorkload, faults: Faults): Workload {
  return {
    kind: 'workload',
    uid: decodeRequired(wire.uid, 'workload.uid', faults),
    name: wire.name,
    namespace: wire.namespace,
    addresses: wire.addresses.map((bytes, i) => decodeIp(bytes, `workload.addresses[${i}]`, faults)),
    hostname: wire.hostname,
    network: wire.network,
    tunnelProtocol: tunnelProtocols.decode(wire.tunnelProtocol, 'workload.tunnelProtocol', faults),
    trustDomain: wire.trustDomain || DEFAULT_TRUST_DOMAIN,
    serviceAccount: wire.serviceAccount || DEFAULT_SERVICE_ACCOUNT,
    ...(wire.waypoint && { waypoint: decodeGatewayAddress(wire.waypoint, 'workload.waypoint', faults) }),
    ...(wire.networkGateway && {
      networkGateway: decodeGatewayAddress(wire.networkGateway, 'workload.networkGateway', faults),
    }),
    node: wire.node,
    canonicalName: wire.canonicalName,
    canonicalRevision: wire.canonicalRevision,
    workloadType: workloadTypes.decode(wire.workloadType, 'workload.workloadType', faults),
    workloadName: wire.workloadName,
    nativeTunnel: wire.nativeTunnel,
    ...(wire.applicationTunnel && {
      applicationTunnel: decodeApplicationTunnel(wire.applicationTunnel, faults),
    }),
    services: decodeServices(wire.services, faults),
    authorizationPolicies: wire.authorizationPolicies,
    status: statuses.decode(wire.status, 'workload.status', faults),
    clusterId: wire.clusterId || DEFAULT_CLUSTER_ID,
    locality: {
      region: wire.locality?.region ?? '',
      zone: wire.locality?.zone ?? '',
      subzone: wire.locality?.subzone ?? '',
    },
    networkMode: networkModes.decode(wire.networkMode, 'workload.networkMode', faults),
    capacity: wire.capacity ?? 1,
    // Whatever it says: somebody wants something else than what is done unasked, and the tunnel is the safe reading.
    ...(wire.extensions.some(({ name }) => name === SAME_NODE) && { sameNode: 'tunnel' as const }),
    ...(wire.extensions.some(saysSplice) && { splice: true as const }),
  };
}

function encodeExtensions({ sameNode, splice }: Workload): WireExtension[] {
  return [
    ...(sameNode === undefined ? [] : [encodeExtension(SAME_NODE, sameNode)]),
    ...(splice === undefined ? [] : [encodeExtension(SPLICE, 'true')]),
  ];
}

function encodeExtension(name: string, value: string): WireExtension {
  return create(ExtensionSchema, {
    name,
    config: anyPack(StringValueSchema, create(StringValueSchema, { value })),
  });
}

/** Nothing but `true` means so: applications may notice the splice. */
function saysSplice({ name, config }: WireExtension): boolean {
  return name === SPLICE && config !== undefined && readString(config) === 'true';
}

function readString(config: Any): string | undefined {
  try {
    return anyUnpack(config, StringValueSchema)?.value;
  } catch {
    return undefined; // of the type's name, but not of the type
  }
}

function encodePorts(ports: readonly PortMapping[]): PortList {
  return create(PortListSchema, {
    ports: ports.map(({ servicePort, targetPort }) => create(PortSchema, { servicePort, targetPort })),
  });
}

function encodeApplicationTunnel(tunnel: ApplicationTunnel): WireApplicationTunnel {
  return create(ApplicationTunnelSchema, {
    protocol: applicationProtocols.encode(tunnel.protocol),
    port: tunnel.port,
  });
}

function decodeApplicationTunnel(wire: WireApplicationTunnel, faults: Faults): ApplicationTunnel {
  const path = 'workload.applicationTunnel';
  return {
    protocol: applicationProtocols.decode(wire.protocol, `${path}.protocol`, faults),
    port: decodePort(wire.port, 0, `${path}.port`, faults),
  };
}

function decodeServices(
  wire: Readonly<Record<string, PortList>>,
  faults: Faults,
): ReadonlyMap<string, readonly PortMapping[]> {
  const services = new Map<string, readonly PortMapping[]>();
  for (const [key, { ports }] of Object.entries(wire)) {
    const path = `workload.services[${JSON.stringify(key)}]`;
    if (!key.includes('/')) faults.add(path, 'is not of the form namespace/hostname');
    services.set(
      key,
      ports.map((port, i) => {
        decodeAppProtocol(port.appProtocol, `${path}.ports[${i}].appProtocol`, faults);
        return {
          servicePort: decodePort(port.servicePort, 0, `${path}.ports[${i}].servicePort`, faults),
          targetPort: decodePort(port.targetPort, 0, `${path}.ports[${i}].targetPort`, faults),
        };
      }),
    );
  }
  return services;
}

function isKnown(locality: Locality): boolean {
  return locality.region !== '' || locality.zone !== '' || locality.subzone !== '';
}
