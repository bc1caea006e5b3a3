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
import { isSame } from './same.ts';

/** The fields of a message, as they are written into it. */
export type Fields<Desc extends DescMessage> = Exclude<MessageInitShape<Desc>, Message>;

/** A resource of Envoy's that is yet to be encoded. */
export interface Draft {
  readonly type: EnvoyType;
  readonly name: string;
  readonly origin: Origin;
  /** All that it is made of: where it is the same, so are the bytes. */
  readonly parts: unknown;
  /** @throws Error where no wire can carry what it is made of. */
  readonly encode: () => Uint8Array;
}

/** A resource of Envoy's, the object that it comes from, and what it was made of. */
export interface Built {
  readonly resource: EnvoyResource;
  readonly origin: Origin;
  readonly parts: unknown;
}

/** Drafts a resource of that type; `init` is asked for its fields when it is encoded. Equal parts give equal bytes. */
export function draft<Desc extends DescMessage>(
  { type, schema }: { readonly type: EnvoyType; readonly schema: Desc },
  { name, origin, parts }: Pick<Draft, 'name' | 'origin' | 'parts'>,
  init: () => MessageInitShape<Desc>,
): Draft {
  return { type, name, origin, parts, encode: () => toBinary(schema, create(schema, init())) };
}

/** Encodes a draft, or takes over what was made of the same parts before: to encode all anew at each change would take too long. */
export function build({ type, name, origin, parts, encode }: Draft, before: Built | undefined): Built {
  const isKept = before !== undefined && isSame(before.parts, parts);
  return { resource: isKept ? before.resource : { type, name, value: encode() }, origin, parts };
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
