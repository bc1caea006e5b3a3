import { createRegistry, type JsonValue, type Registry, toJson } from '@bufbuild/protobuf';
import { base64Decode } from '@bufbuild/protobuf/wire';
import { StringValueSchema } from '@bufbuild/protobuf/wkt';
import { familyOf, type Ip, ipFromBytes, ipToBytes } from './address.ts';
import { encodeAuthorization } from './codec-authorization.ts';
import { encodeService } from './codec-service.ts';
import { encodeWorkload } from './codec-workload.ts';
import { AuthorizationSchema } from './gen/istio/security/authorization_pb.ts';
import { ServiceSchema, WorkloadSchema } from './gen/istio/workload/workload_pb.ts';
import type { Resource } from './resource.ts';
import type { Workload } from './workload.ts';

/** What extensions of workloads are made of. */
const EXTENSIONS: Registry = createRegistry(StringValueSchema);

/**
 * A resource as people compare it with what another control plane serves: the message as proto3 JSON, defaults left out,
 * except that addresses are text (IPv6 with all its groups) and a capacity is `{ "value": n }`. Workloads and services
 * are wrapped in `workload` or `service`, as in the message that carries both.
 */
export function printResource(resource: Resource): JsonValue {
  switch (resource.kind) {
    case 'workload':
      return { workload: printWorkload(resource) };
    case 'service':
      return { service: withAddressText(toJson(ServiceSchema, encodeService(resource))) };
    case 'authorization':
      return withAddressText(toJson(AuthorizationSchema, encodeAuthorization(resource)));
  }
}

function printWorkload(workload: Workload): JsonValue {
  const { capacity, ...wire } = encodeWorkload(workload);
  // A pod always has a service account; of other workloads, `default` says that none was given.
  if (wire.serviceAccount === 'default' && !wire.uid.includes('//Pod/')) wire.serviceAccount = '';
  const json = withAddressText(toJson(WorkloadSchema, wire, { registry: EXTENSIONS }));
  return capacity === undefined || !isObject(json) ? json : { ...json, capacity: { value: capacity } };
}

/** Fields `address` and `addresses` that hold bytes become text. */
function withAddressText(json: JsonValue): JsonValue {
  if (Array.isArray(json)) return json.map(withAddressText);
  if (!isObject(json)) return json;
  const entries = Object.entries(json).map(([key, value]): [string, JsonValue] => {
    if (key === 'address' && typeof value === 'string') return [key, addressText(value)];
    if (key === 'addresses' && Array.isArray(value)) {
      return [
        key,
        value.map((item) => (typeof item === 'string' ? addressText(item) : withAddressText(item))),
      ];
    }
    return [key, withAddressText(value)];
  });
  return Object.fromEntries(entries);
}

function addressText(base64: string): string {
  const ip = ipFromBytes(base64Decode(base64));
  return familyOf(ip) === 4 ? ip : inFull(ip);
}

function inFull(ip: Ip): string {
  const hex = Buffer.from(ipToBytes(ip)).toString('hex');
  return hex.replace(/(.{4})(?=.)/g, '$1:');
}

function isObject(json: JsonValue): json is { [key: string]: JsonValue } {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}
