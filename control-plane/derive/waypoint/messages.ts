import {
  create,
  type DescMessage,
  type JsonObject,
  type Message,
  type MessageInitShape,
  toBinary,
} from '@bufbuild/protobuf';
import { type Any, type Duration, DurationSchema } from '@bufbuild/protobuf/wkt';
import type { MetadataSchema } from '#api/envoy/gen/envoy/config/core/v3/base_pb.ts';
import type { ConfigSourceSchema } from '#api/envoy/gen/envoy/config/core/v3/config_source_pb.ts';
import { ApiVersion } from '#api/envoy/gen/envoy/config/core/v3/config_source_pb.ts';
import {
  type ClusterMetadata,
  type EndpointMetadata,
  type ListenerMetadata,
  METADATA_NAMESPACE,
  type RouteMetadata,
} from '#api/envoy/metadata.ts';
import type { EnvoyResource, EnvoyType } from '#api/envoy/types.ts';
import type { Origin } from '../context.ts';

/** The fields of a message, as they are written into it. */
export type Fields<Desc extends DescMessage> = Exclude<MessageInitShape<Desc>, Message>;

/** A resource of Envoy's and the object that it comes from. */
export interface Built {
  readonly resource: EnvoyResource;
  readonly origin: Origin;
}

/** Makes a resource. Equal input gives equal bytes. */
export function build<Desc extends DescMessage>(
  type: EnvoyType,
  name: string,
  schema: Desc,
  init: MessageInitShape<Desc>,
  origin: Origin,
): Built {
  return { resource: { type, name, value: toBinary(schema, create(schema, init)) }, origin };
}

/** What is ours, where Envoy keeps what it does not read. */
export function ownMetadata(
  value: ListenerMetadata | RouteMetadata | ClusterMetadata | EndpointMetadata,
): Fields<typeof MetadataSchema> {
  // The interfaces hold nothing but text, numbers, truth values, lists and objects.
  return { filterMetadata: { [METADATA_NAMESPACE]: value as unknown as JsonObject } };
}

/** Over the stream that the resource itself came on. */
export const FROM_ADS: Fields<typeof ConfigSourceSchema> = {
  configSourceSpecifier: { case: 'ads', value: {} },
  resourceApiVersion: ApiVersion.V3,
};

/** Of milliseconds. */
export function duration(ms: number): Duration {
  return create(DurationSchema, {
    seconds: BigInt(Math.floor(ms / 1000)),
    nanos: Math.round((ms % 1000) * 1e6),
  });
}

/** An extension by its name, as filters and the like have them. */
export function typed(
  name: string,
  value: Any,
): { readonly name: string; readonly configType: { readonly case: 'typedConfig'; readonly value: Any } } {
  return { name, configType: { case: 'typedConfig', value } };
}
