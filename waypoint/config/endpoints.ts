import { AddressError, type HostPort, parseIp } from '#api/address.ts';
import { SocketAddress_Protocol } from '#api/envoy/gen/envoy/config/core/v3/address_pb.ts';
import { HealthStatus } from '#api/envoy/gen/envoy/config/core/v3/health_check_pb.ts';
import type {
  Endpoint as EnvoyEndpoint,
  LbEndpoint,
} from '#api/envoy/gen/envoy/config/endpoint/v3/endpoint_components_pb.ts';
import { ClusterLoadAssignmentSchema } from '#api/envoy/gen/envoy/config/endpoint/v3/endpoint_pb.ts';
import { type Identity, IdentityError, parseIdentity } from '#certs/identity.ts';
import type { Endpoint } from '../model.ts';
import { refuse } from './config-error.ts';
import { decodeMessage } from './decode.ts';
import { endpointMetadata } from './metadata.ts';

/** The endpoints of all localities, in order. @throws ConfigError */
export function compileEndpoints(bytes: Uint8Array): readonly Endpoint[] {
  const assignment = decodeMessage(ClusterLoadAssignmentSchema, bytes);
  return assignment.endpoints.flatMap((locality) => locality.lbEndpoints.map(compileEndpoint));
}

function compileEndpoint(endpoint: LbEndpoint): Endpoint {
  const { hostIdentifier } = endpoint;
  if (hostIdentifier.case !== 'endpoint') return refuse('an endpoint by name is not supported');
  const metadata = endpointMetadata(endpoint.metadata);
  const address = addressOf(hostIdentifier.value);
  return {
    address,
    health: healthOf(endpoint.healthStatus),
    weight: endpoint.loadBalancingWeight ?? 1,
    tunnel: metadata?.tunnel ?? 'NONE',
    identity: identityOf(metadata?.identity ?? ''),
    workload: {
      uid: metadata?.uid ?? '',
      name: metadata?.name ?? '',
      namespace: metadata?.namespace ?? '',
      ...optional('workload', metadata?.workload),
      ...optional('workloadType', metadata?.workload_type),
      ...optional('canonicalName', metadata?.canonical_name),
      ...optional('canonicalRevision', metadata?.canonical_revision),
      ...optional('cluster', metadata?.cluster),
      ...optional('node', metadata?.node),
    },
  };
}

function optional<Key extends string>(key: Key, value: string | undefined): { readonly [K in Key]?: string } {
  // One key, which is Key.
  return value === undefined ? {} : ({ [key]: value } as { readonly [K in Key]: string });
}

function addressOf({ address }: EnvoyEndpoint): HostPort {
  if (address?.address.case !== 'socketAddress')
    return refuse('an endpoint without a socket_address is not supported');
  const socket = address.address.value;
  if (socket.protocol !== SocketAddress_Protocol.TCP)
    refuse('an endpoint that is not of TCP is not supported');
  if (socket.portSpecifier.case !== 'portValue')
    return refuse(`endpoint ${socket.address} has no port_value`);
  try {
    return { ip: parseIp(socket.address), port: socket.portSpecifier.value };
  } catch (error) {
    if (error instanceof AddressError) return refuse(`an endpoint's address: ${error.message}`);
    throw error;
  }
}

function healthOf(status: HealthStatus): Endpoint['health'] {
  switch (status) {
    case HealthStatus.UNKNOWN:
    case HealthStatus.HEALTHY:
      return 'healthy';
    case HealthStatus.DRAINING:
      return 'draining';
    case HealthStatus.UNHEALTHY:
    case HealthStatus.TIMEOUT:
      return 'unhealthy';
    default:
      return refuse(`health_status ${status} is not supported`);
  }
}

function identityOf(text: string): Identity | undefined {
  if (text === '') return undefined;
  try {
    return parseIdentity(text);
  } catch (error) {
    if (error instanceof IdentityError) return refuse(`an endpoint's identity: ${error.message}`);
    throw error;
  }
}
