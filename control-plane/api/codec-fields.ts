import { create } from '@bufbuild/protobuf';
import { type Ip, ipFromBytes, ipToBytes } from './address.ts';
import type { Faults } from './faults.ts';
import {
  GatewayAddressSchema,
  NamespacedHostnameSchema,
  NetworkAddressSchema,
  type GatewayAddress as WireGatewayAddress,
} from './gen/istio/workload/workload_pb.ts';
import type { GatewayAddress } from './workload.ts';

/** One enum, both ways: names as the domain writes them, numbers as the wire does. */
export interface EnumCodec<Name extends string, Value extends number> {
  readonly encode: (name: Name) => Value;
  /** An unknown number is a fault: the sender means something that is not understood here. */
  readonly decode: (value: number, path: string, faults: Faults) => Name;
}

/** Builds both directions from one table; `first` stands in for an unknown number until the fault is thrown. */
export function enumCodec<Name extends string, Value extends number>(
  first: NoInfer<Name>,
  numbers: Readonly<Record<Name, Value>>,
): EnumCodec<Name, Value> {
  const names = new Map<number, Name>();
  for (const name of Object.keys(numbers) as Name[]) names.set(numbers[name], name);
  return {
    encode: (name) => numbers[name],
    decode: (value, path, faults) => {
      const name = names.get(value);
      if (name === undefined) faults.add(path, `unknown enum value ${value}`);
      return name ?? first;
    },
  };
}

/** 4 or 16 bytes; anything else is a fault. */
export function decodeIp(bytes: Uint8Array, path: string, faults: Faults): Ip {
  if (bytes.length === 4 || bytes.length === 16) return ipFromBytes(bytes);
  faults.add(path, `${bytes.length} bytes are not an IP address`);
  return '0.0.0.0';
}

/** A port from `lowest` to 65535. */
export function decodePort(value: number, lowest: 0 | 1, path: string, faults: Faults): number {
  if (value < lowest || value > 65_535) faults.add(path, `${value} is not a port`);
  return value;
}

/** Text that has to be there. */
export function decodeRequired(value: string, path: string, faults: Faults): string {
  if (value === '') faults.add(path, 'is missing');
  return value;
}

/** @see GatewayAddress */
export function encodeGatewayAddress(gateway: GatewayAddress): WireGatewayAddress {
  const { destination } = gateway;
  return create(GatewayAddressSchema, {
    hboneMtlsPort: gateway.hboneMtlsPort,
    destination:
      destination.kind === 'hostname'
        ? {
            case: 'hostname',
            value: create(NamespacedHostnameSchema, {
              namespace: destination.namespace,
              hostname: destination.hostname,
            }),
          }
        : {
            case: 'address',
            value: create(NetworkAddressSchema, {
              network: destination.network,
              address: ipToBytes(destination.ip),
            }),
          },
  });
}

/** A gateway without a destination is a fault: a waypoint that is bound and unknown must not be skipped. */
export function decodeGatewayAddress(wire: WireGatewayAddress, path: string, faults: Faults): GatewayAddress {
  const hboneMtlsPort = decodePort(wire.hboneMtlsPort, 0, `${path}.hboneMtlsPort`, faults);
  switch (wire.destination.case) {
    case 'hostname': {
      const { namespace, hostname } = wire.destination.value;
      decodeRequired(hostname, `${path}.hostname.hostname`, faults);
      return { destination: { kind: 'hostname', namespace, hostname }, hboneMtlsPort };
    }
    case 'address': {
      const { network, address } = wire.destination.value;
      const ip = decodeIp(address, `${path}.address.address`, faults);
      return { destination: { kind: 'address', network, ip }, hboneMtlsPort };
    }
    case undefined:
      faults.add(path, 'has no destination');
      return { destination: { kind: 'hostname', namespace: '', hostname: '' }, hboneMtlsPort };
  }
}
