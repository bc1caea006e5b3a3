import { type DescMessage, fromBinary, type JsonValue, toJson } from '@bufbuild/protobuf';
import { ENVOY_REGISTRY } from './any.ts';
import { ClusterSchema } from './gen/envoy/config/cluster/v3/cluster_pb.ts';
import { ClusterLoadAssignmentSchema } from './gen/envoy/config/endpoint/v3/endpoint_pb.ts';
import { ListenerSchema } from './gen/envoy/config/listener/v3/listener_pb.ts';
import { RouteConfigurationSchema } from './gen/envoy/config/route/v3/route_pb.ts';
import { SecretSchema } from './gen/envoy/extensions/transport_sockets/tls/v3/secret_pb.ts';
import {
  CLUSTER_TYPE,
  ENDPOINT_TYPE,
  type EnvoyResource,
  type EnvoyType,
  LISTENER_TYPE,
  ROUTE_TYPE,
  SECRET_TYPE,
} from './types.ts';

const SCHEMAS: Readonly<Record<EnvoyType, DescMessage>> = {
  [CLUSTER_TYPE]: ClusterSchema,
  [ENDPOINT_TYPE]: ClusterLoadAssignmentSchema,
  [LISTENER_TYPE]: ListenerSchema,
  [ROUTE_TYPE]: RouteConfigurationSchema,
  [SECRET_TYPE]: SecretSchema,
};

/**
 * A resource as proto3 JSON, with what stands in each `Any` spelled out: the text that Envoy's own tools read and write.
 * @throws Error for bytes that are not of the type, or an `Any` of a type that is not known.
 */
export function envoyResourceToJson(resource: EnvoyResource): JsonValue {
  const schema = SCHEMAS[resource.type];
  return toJson(schema, fromBinary(schema, resource.value), { registry: ENVOY_REGISTRY });
}
