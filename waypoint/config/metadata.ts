import type { Message } from '@bufbuild/protobuf';
import { z } from 'zod';
import type { Metadata } from '#api/envoy/gen/envoy/config/core/v3/base_pb.ts';
import {
  type ClusterMetadata,
  type EndpointMetadata,
  type ListenerMetadata,
  METADATA_NAMESPACE,
  type RouteMetadata,
} from '#api/envoy/metadata.ts';
import type { Origin } from '../model.ts';
import { refuse } from './config-error.ts';

const port = z.int().min(0).max(65_535);
const strings = z.array(z.string()).readonly();

const LISTENER: z.ZodType<ListenerMetadata> = z.strictObject({
  service: z.string(),
  addresses: strings,
  port,
  consumer_namespace: z.string().min(1).exactOptional(),
  authorizations: strings.exactOptional(),
  refuse: z.string().min(1).exactOptional(),
});

const FAULT = z.strictObject({
  name: z.string(),
  policy: z.string(),
  expires_at_ms: z.number(),
  where: z.enum(['downstream', 'upstream']),
  in_filter: z.boolean(),
  percent: z.number().min(0).max(100).exactOptional(),
  headers: z
    .array(
      z.strictObject({
        name: z.string(),
        exact: z.string().exactOptional(),
        regex: z.string().exactOptional(),
      }),
    )
    .readonly()
    .exactOptional(),
  from_service_accounts: strings.exactOptional(),
  from_namespaces: strings.exactOptional(),
  delay_ms: z.number().min(0).exactOptional(),
  delay_jitter_ms: z.number().min(0).exactOptional(),
  abort_http_status: z.int().min(200).max(599).exactOptional(),
  abort_grpc_status: z.int().min(0).max(16).exactOptional(),
  response_kbps: z.number().positive().exactOptional(),
  max_concurrent: z.int().min(0).exactOptional(),
});

const ROUTE: z.ZodType<RouteMetadata> = z.strictObject({
  object: z.string().exactOptional(),
  rule: z.int().min(0).exactOptional(),
  rule_name: z.string().exactOptional(),
  faults: z.array(FAULT).readonly().exactOptional(),
  retry: z.literal('explicit').exactOptional(),
  session_idle_ms: z.number().positive().exactOptional(),
  session_absolute_ms: z.number().positive().exactOptional(),
});

const CLUSTER: z.ZodType<ClusterMetadata> = z.strictObject({ backend: z.string(), service: z.string() });

const ENDPOINT: z.ZodType<EndpointMetadata> = z.strictObject({
  tunnel: z.enum(['HBONE', 'NONE']),
  identity: z.string(),
  uid: z.string(),
  name: z.string(),
  namespace: z.string(),
  workload: z.string().exactOptional(),
  workload_type: z.string().exactOptional(),
  canonical_name: z.string().exactOptional(),
  canonical_revision: z.string().exactOptional(),
  cluster: z.string().exactOptional(),
  node: z.string().exactOptional(),
});

/** Of a Listener, which cannot do without. @throws ConfigError */
export function listenerMetadata(metadata: Metadata | undefined): ListenerMetadata {
  return read(metadata, LISTENER) ?? refuse(`metadata "${METADATA_NAMESPACE}" is missing`);
}

/** Of a Route or a filter chain; nothing when there is none. @throws ConfigError */
export function routeMetadata(metadata: Metadata | undefined): RouteMetadata {
  return read(metadata, ROUTE) ?? {};
}

/** Of a Cluster. @throws ConfigError */
export function clusterMetadata(metadata: Metadata | undefined): ClusterMetadata | undefined {
  return read(metadata, CLUSTER);
}

/** Of an LbEndpoint. @throws ConfigError */
export function endpointMetadata(metadata: Metadata | undefined): EndpointMetadata | undefined {
  return read(metadata, ENDPOINT);
}

/** Where a route was written, as its metadata says. */
export function originOf(metadata: RouteMetadata): Origin {
  return {
    object: metadata.object ?? '',
    rule: metadata.rule ?? 0,
    ...(metadata.rule_name === undefined ? {} : { ruleName: metadata.rule_name }),
  };
}

function read<T>(metadata: (Metadata & Message) | undefined, schema: z.ZodType<T>): T | undefined {
  const ours = metadata?.filterMetadata[METADATA_NAMESPACE];
  if (ours === undefined) return undefined;
  const { success, data, error } = schema.safeParse(ours);
  if (success) return data;
  const [issue] = error.issues;
  const path = [`metadata "${METADATA_NAMESPACE}"`, ...(issue?.path ?? [])].join('.');
  return refuse(`${path}: ${issue?.message ?? 'is not valid'}`);
}
