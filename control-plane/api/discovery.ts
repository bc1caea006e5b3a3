import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import type { ServiceDefinition, UntypedHandleCall } from '@grpc/grpc-js';
import {
  type DeltaDiscoveryRequest,
  DeltaDiscoveryRequestSchema,
  type DeltaDiscoveryResponse,
  DeltaDiscoveryResponseSchema,
} from './gen/envoy/service/discovery/v3/discovery_pb.ts';

/** The one method of the aggregated discovery service that is spoken here. */
export const DELTA_METHOD: '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources' =
  '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources';

/** What every client asks for that wants all there is. */
export const WILDCARD = '*';

/** The service as grpc-js takes it; both ways messages are bytes. */
export const DISCOVERY_SERVICE: ServiceDefinition<{ deltaAggregatedResources: UntypedHandleCall }> = {
  deltaAggregatedResources: {
    path: DELTA_METHOD,
    requestStream: true,
    responseStream: true,
    requestSerialize: (bytes: Buffer) => bytes,
    requestDeserialize: (bytes: Buffer) => bytes,
    responseSerialize: (bytes: Buffer) => bytes,
    responseDeserialize: (bytes: Buffer) => bytes,
  },
};

/** The bytes of a request. */
export function encodeRequest(request: MessageInitShape<typeof DeltaDiscoveryRequestSchema>): Buffer {
  return asBuffer(toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, request)));
}

/** @throws Error for bytes that are no such message. */
export function decodeRequest(bytes: Uint8Array): DeltaDiscoveryRequest {
  return fromBinary(DeltaDiscoveryRequestSchema, bytes, { readUnknownFields: false });
}

/** @throws Error for bytes that are no such message. */
export function decodeResponse(bytes: Uint8Array): DeltaDiscoveryResponse {
  return fromBinary(DeltaDiscoveryResponseSchema, bytes, { readUnknownFields: false });
}

/** The bytes of a response; `resources` are fields that {@link encodeResourceField} made, in any number of clients' answers. */
export function encodeResponse(response: {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly resources: readonly Uint8Array[];
  readonly removed: readonly string[];
}): Buffer {
  const rest = toBinary(
    DeltaDiscoveryResponseSchema,
    create(DeltaDiscoveryResponseSchema, {
      typeUrl: response.typeUrl,
      nonce: response.nonce,
      removedResources: [...response.removed],
    }),
  );
  return Buffer.concat([...response.resources, rest]);
}

/** One entry of a response's `resources`, with tag and length. */
export function encodeResourceField(entry: {
  readonly name: string;
  readonly version: string;
  readonly typeUrl: string;
  readonly value: Uint8Array;
}): Uint8Array {
  const { name, version, typeUrl, value } = entry;
  const response = create(DeltaDiscoveryResponseSchema, {
    resources: [{ name, version, resource: { typeUrl, value } }],
  });
  return toBinary(DeltaDiscoveryResponseSchema, response);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
