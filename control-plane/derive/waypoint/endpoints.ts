import { familyOf, type Ip } from '#api/address.ts';
import { HealthStatus } from '#api/envoy/gen/envoy/config/core/v3/health_check_pb.ts';
import type { LbEndpointSchema } from '#api/envoy/gen/envoy/config/endpoint/v3/endpoint_components_pb.ts';
import { ClusterLoadAssignmentSchema } from '#api/envoy/gen/envoy/config/endpoint/v3/endpoint_pb.ts';
import type { EndpointMetadata } from '#api/envoy/metadata.ts';
import { ENDPOINT_TYPE } from '#api/envoy/types.ts';
import type { Service, ServicePort } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import type { Origin } from '../context.ts';
import { type Draft, draft, type Fields, ownMetadata } from './messages.ts';

/** A workload behind services, and whether it is on its way out: it still serves, and is to get nothing new. */
export interface EndpointWorkload {
  readonly workload: Workload;
  readonly draining: boolean;
}

const ENDPOINTS = { type: ENDPOINT_TYPE, schema: ClusterLoadAssignmentSchema };
const MAX_WEIGHT = 0xffff_ffff;

type LbEndpointInit = Fields<typeof LbEndpointSchema>;

/**
 * The endpoints of a service's port, by locality, as a ztunnel chooses them: ready ones, with the workload's own target port
 * where it has one. Those that are not ready are named, too, so that it shows why nothing goes there.
 */
export function draftEndpoints(
  name: string,
  service: Service,
  port: ServicePort,
  members: readonly EndpointWorkload[],
  origin: Origin,
): Draft {
  const endpoints = members.flatMap((member) => {
    const ip = addressFor(member.workload, service);
    const targetPort = targetPortOf(member.workload, service, port);
    if (ip === undefined || targetPort === 0 || member.workload.capacity <= 0) return [];
    return [
      { workload: member.workload, init: toLbEndpoint(member, ip, targetPort, healthOf(member, service)) },
    ];
  });
  return assignment(name, endpoints, origin);
}

/** The one endpoint of a workload's address, at the port that was asked for (0). */
export function draftPodEndpoint(name: string, member: EndpointWorkload, ip: Ip, origin: Origin): Draft {
  const health = healthOf(member, undefined);
  return assignment(name, [{ workload: member.workload, init: toLbEndpoint(member, ip, 0, health) }], origin);
}

function assignment(
  name: string,
  members: readonly { readonly workload: Workload; readonly init: LbEndpointInit }[],
  origin: Origin,
): Draft {
  const places = Map.groupBy(members, ({ workload }) => JSON.stringify(workload.locality));
  const endpoints = [...places.values()].flatMap((group) => {
    const [first] = group;
    if (first === undefined) return [];
    const { region, zone, subzone } = first.workload.locality;
    const isKnown = region !== '' || zone !== '' || subzone !== '';
    return [
      {
        ...(isKnown && { locality: { region, zone, subZone: subzone } }),
        lbEndpoints: group.map(({ init }) => init),
        loadBalancingWeight: Math.min(
          group.reduce((sum, { workload }) => sum + workload.capacity, 0),
          MAX_WEIGHT,
        ),
      },
    ];
  });
  return draft(ENDPOINTS, { name, origin, parts: endpoints }, () => ({ clusterName: name, endpoints }));
}

function toLbEndpoint(
  { workload }: EndpointWorkload,
  ip: Ip,
  port: number,
  healthStatus: HealthStatus,
): LbEndpointInit {
  return {
    hostIdentifier: {
      case: 'endpoint',
      value: {
        address: {
          address: {
            case: 'socketAddress',
            value: { address: ip, portSpecifier: { case: 'portValue', value: port } },
          },
        },
      },
    },
    healthStatus,
    loadBalancingWeight: workload.capacity,
    metadata: ownMetadata(describe(workload)),
  };
}

function healthOf({ workload, draining }: EndpointWorkload, service: Service | undefined): HealthStatus {
  if (draining) return HealthStatus.DRAINING;
  const isUsed = workload.status === 'HEALTHY' || service?.loadBalancing?.healthPolicy === 'ALLOW_ALL';
  return isUsed ? HealthStatus.HEALTHY : HealthStatus.UNHEALTHY;
}

function describe(workload: Workload): EndpointMetadata {
  return {
    tunnel: workload.tunnelProtocol,
    identity: workload.tunnelProtocol === 'HBONE' ? formatIdentity(workload) : '',
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    workload: workload.workloadName,
    workload_type: workload.workloadType.toLowerCase(),
    canonical_name: workload.canonicalName,
    canonical_revision: workload.canonicalRevision,
    cluster: workload.clusterId,
    ...(workload.node !== '' && { node: workload.node }),
  };
}

/** The workload's own mapping, else the service's; 0 when a named port is not one of the workload's. */
function targetPortOf(workload: Workload, { namespace, hostname }: Service, port: ServicePort): number {
  const own = workload.services
    .get(`${namespace}/${hostname}`)
    ?.find(({ servicePort }) => servicePort === port.servicePort);
  return own?.targetPort || port.targetPort;
}

/** Of a workload with addresses of both families one of that of the service's first address: a waypoint tries one endpoint a workload. */
function addressFor(workload: Workload, service: Service): Ip | undefined {
  const usable = usableAddresses(workload, service);
  const [first] = service.addresses;
  const family = first && familyOf(first.ip);
  return usable.find((ip) => familyOf(ip) === family) ?? usable[0];
}

function usableAddresses(workload: Workload, { ipFamilies }: Service): readonly Ip[] {
  switch (ipFamilies) {
    case 'IPV4_ONLY':
      return workload.addresses.filter((ip) => familyOf(ip) === 4);
    case 'IPV6_ONLY':
      return workload.addresses.filter((ip) => familyOf(ip) === 6);
    default:
      return workload.addresses;
  }
}
