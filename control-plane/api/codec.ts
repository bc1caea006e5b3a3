import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { decodeAuthorization, encodeAuthorization } from './codec-authorization.ts';
import { decodeService, encodeService } from './codec-service.ts';
import { decodeWorkload, encodeWorkload } from './codec-workload.ts';
import { Faults, ResourceError } from './faults.ts';
import { AuthorizationSchema } from './gen/istio/security/authorization_pb.ts';
import { AddressSchema } from './gen/istio/workload/workload_pb.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource, type ResourceType } from './resource.ts';

/** Fields of a newer sender are harmless and not kept. */
const SKIP_UNKNOWN = { readUnknownFields: false };

/**
 * The bytes of `istio.workload.Address` or `istio.security.Authorization`. Equal resources give equal bytes.
 * @throws Error for a resource that no wire can carry: text that is not an address, a number out of range.
 */
export function encodeResource(resource: Resource): Uint8Array {
  switch (resource.kind) {
    case 'workload':
      return toBinary(
        AddressSchema,
        create(AddressSchema, { type: { case: 'workload', value: encodeWorkload(resource) } }),
      );
    case 'service':
      return toBinary(
        AddressSchema,
        create(AddressSchema, { type: { case: 'service', value: encodeService(resource) } }),
      );
    case 'authorization':
      return toBinary(AuthorizationSchema, encodeAuthorization(resource));
  }
}

/**
 * Reads such bytes, with the defaults of empty fields filled in. As strict as a stock ztunnel: an enum number that is not
 * known here, an address of the wrong length, a gateway without destination reject the whole resource.
 * @throws ResourceError and nothing else, naming everything that is wrong.
 */
export function decodeResource(type: ResourceType, bytes: Uint8Array): Resource {
  const faults = new Faults();
  const resource = type === ADDRESS_TYPE ? decodeAddress(bytes, faults) : decodePolicy(bytes, faults);
  faults.throwIfAny();
  return resource;
}

function decodeAddress(bytes: Uint8Array, faults: Faults): Resource {
  const { type } = parse(ADDRESS_TYPE, () => fromBinary(AddressSchema, bytes, SKIP_UNKNOWN));
  switch (type.case) {
    case 'workload':
      return decodeWorkload(type.value, faults);
    case 'service':
      return decodeService(type.value, faults);
    case undefined:
      throw new ResourceError('neither a workload nor a service', { code: 'INVALID' });
  }
}

function decodePolicy(bytes: Uint8Array, faults: Faults): Resource {
  return decodeAuthorization(
    parse(AUTHORIZATION_TYPE, () => fromBinary(AuthorizationSchema, bytes, SKIP_UNKNOWN)),
    faults,
  );
}

function parse<T>(type: ResourceType, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ResourceError(`not a message of type ${type}: ${reason}`, { code: 'MALFORMED', cause });
  }
}
