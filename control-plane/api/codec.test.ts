import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { type Any, anyPack, BoolValueSchema, StringValueSchema } from '@bufbuild/protobuf/wkt';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Cidr, familyOf, type Ip, ipToBytes, parseIp } from './address.ts';
import { decodeResource, encodeResource } from './codec.ts';
import { decodeWorkload, encodeWorkload } from './codec-workload.ts';
import { Faults, ResourceError } from './faults.ts';
import { AuthorizationSchema } from './gen/istio/security/authorization_pb.ts';
import { AddressSchema, ServiceSchema, WorkloadSchema } from './gen/istio/workload/workload_pb.ts';
import type { Authorization, Match, StringMatch } from './policy.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type Resource, resourceType } from './resource.ts';
import type { Service } from './service.ts';
import type { GatewayAddress, Workload } from './workload.ts';

const text = fc.string({ unit: 'grapheme', maxLength: 12 });
const word = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 });
const port = fc.integer({ min: 0, max: 65_535 });
const ip: fc.Arbitrary<Ip> = fc.oneof(fc.ipV4(), fc.ipV6()).map(parseIp);
const cidr: fc.Arbitrary<Cidr> = ip.chain((address) =>
  fc.record({
    address: fc.constant(address),
    length: fc.integer({ min: 0, max: familyOf(address) === 4 ? 32 : 128 }),
  }),
);
const gateway: fc.Arbitrary<GatewayAddress> = fc.record({
  destination: fc.oneof(
    fc.record({ kind: fc.constant('hostname' as const), namespace: text, hostname: word }),
    fc.record({ kind: fc.constant('address' as const), network: text, ip }),
  ),
  hboneMtlsPort: port,
});
const ports = fc.array(fc.record({ servicePort: port, targetPort: port }), { maxLength: 3 });
const serviceName = fc.tuple(word, word).map(([namespace, hostname]) => `${namespace}/${hostname}`);
const stringMatch: fc.Arbitrary<StringMatch> = fc.oneof(
  fc.record({ kind: fc.constantFrom('exact' as const, 'prefix' as const, 'suffix' as const), value: text }),
  fc.constant({ kind: 'presence' as const }),
);

const workload: fc.Arbitrary<Workload> = fc.record(
  {
    kind: fc.constant('workload' as const),
    uid: word,
    name: text,
    namespace: text,
    addresses: fc.array(ip, { maxLength: 3 }),
    hostname: text,
    network: text,
    tunnelProtocol: fc.constantFrom('NONE' as const, 'HBONE' as const),
    trustDomain: word,
    serviceAccount: word,
    waypoint: gateway,
    networkGateway: gateway,
    node: text,
    canonicalName: text,
    canonicalRevision: text,
    workloadType: fc.constantFrom('DEPLOYMENT' as const, 'CRONJOB' as const, 'POD' as const, 'JOB' as const),
    workloadName: text,
    nativeTunnel: fc.boolean(),
    applicationTunnel: fc.record({ protocol: fc.constantFrom('NONE' as const, 'PROXY' as const), port }),
    services: fc.array(fc.tuple(serviceName, ports), { maxLength: 3 }).map((entries) => new Map(entries)),
    authorizationPolicies: fc.array(text, { maxLength: 3 }),
    status: fc.constantFrom('HEALTHY' as const, 'UNHEALTHY' as const),
    clusterId: word,
    locality: fc.record({ region: text, zone: text, subzone: text }),
    networkMode: fc.constantFrom('STANDARD' as const, 'HOST_NETWORK' as const),
    capacity: fc.integer({ min: 0, max: 0xffff_ffff }),
    sameNode: fc.constant('tunnel' as const),
    splice: fc.constant(true as const),
  },
  {
    requiredKeys: [
      'kind',
      'uid',
      'name',
      'namespace',
      'addresses',
      'hostname',
      'network',
      'tunnelProtocol',
      'trustDomain',
      'serviceAccount',
      'node',
      'canonicalName',
      'canonicalRevision',
      'workloadType',
      'workloadName',
      'nativeTunnel',
      'services',
      'authorizationPolicies',
      'status',
      'clusterId',
      'locality',
      'networkMode',
      'capacity',
    ],
  },
);

const serviceRecord: fc.Arbitrary<Service> = fc.record({
  kind: fc.constant('service' as const),
  name: text,
  namespace: word,
  hostname: word,
  addresses: fc.array(
    fc.oneof(
      fc.record({ network: text, ip }),
      cidr
        .filter(({ address, length }) => length < (familyOf(address) === 4 ? 32 : 128))
        .map(({ address, length }) => ({ network: 'n', ip: address, length })),
    ),
    { maxLength: 3 },
  ),
  ports: fc.array(
    fc.record({
      servicePort: port,
      targetPort: port,
      appProtocol: fc.constantFrom('UNKNOWN' as const, 'HTTP11' as const, 'GRPC' as const, 'TLS' as const),
    }),
    { maxLength: 3 },
  ),
  subjectAltNames: fc.array(text, { maxLength: 2 }),
  weightedWaypoints: fc.array(fc.record({ destination: gateway, weight: port }), { maxLength: 2 }),
  ipFamilies: fc.constantFrom(
    'AUTOMATIC' as const,
    'IPV4_ONLY' as const,
    'IPV6_ONLY' as const,
    'DUAL' as const,
  ),
  canonical: fc.boolean(),
  ingressUseWaypoint: fc.boolean(),
  visibility: fc.constantFrom('PUBLIC' as const, 'NAMESPACE' as const),
});
const loadBalancing: fc.Arbitrary<Pick<Service, 'loadBalancing'>> = fc.record({
  loadBalancing: fc.record({
    routingPreference: fc.array(fc.constantFrom('REGION' as const, 'NODE' as const, 'NETWORK' as const)),
    mode: fc.constantFrom(
      'UNSPECIFIED' as const,
      'STRICT' as const,
      'FAILOVER' as const,
      'PASSTHROUGH' as const,
    ),
    healthPolicy: fc.constantFrom('ONLY_HEALTHY' as const, 'ALLOW_ALL' as const),
  }),
});
const service: fc.Arbitrary<Service> = fc
  .tuple(
    serviceRecord,
    fc.option(loadBalancing, { nil: {} }),
    fc.option(fc.record({ waypoint: gateway }), { nil: {} }),
  )
  .map(([record, balancing, waypoint]) => ({ ...record, ...balancing, ...waypoint }));

const accounts = fc.array(fc.record({ namespace: text, serviceAccount: text }), { maxLength: 2 });
const match: fc.Arbitrary<Match> = fc.record({
  namespaces: fc.array(stringMatch, { maxLength: 2 }),
  notNamespaces: fc.array(stringMatch, { maxLength: 2 }),
  principals: fc.array(stringMatch, { maxLength: 2 }),
  notPrincipals: fc.array(stringMatch, { maxLength: 2 }),
  sourceIps: fc.array(cidr, { maxLength: 2 }),
  notSourceIps: fc.array(cidr, { maxLength: 2 }),
  destinationIps: fc.array(cidr, { maxLength: 2 }),
  notDestinationIps: fc.array(cidr, { maxLength: 2 }),
  destinationPorts: fc.array(port, { maxLength: 2 }),
  notDestinationPorts: fc.array(port, { maxLength: 2 }),
  serviceAccounts: accounts,
  notServiceAccounts: accounts,
});
const authorization: fc.Arbitrary<Authorization> = fc.record({
  kind: fc.constant('authorization' as const),
  name: word,
  namespace: word,
  scope: fc.constantFrom('GLOBAL' as const, 'NAMESPACE' as const, 'WORKLOAD_SELECTOR' as const),
  action: fc.constantFrom('ALLOW' as const, 'DENY' as const),
  rules: fc.array(
    fc.record({
      clauses: fc.array(fc.record({ matches: fc.array(match, { maxLength: 2 }) }), { maxLength: 2 }),
    }),
    { maxLength: 2 },
  ),
  dryRun: fc.boolean(),
});
const resource: fc.Arbitrary<Resource> = fc.oneof(workload, service, authorization);

test('what is encoded decodes to the same', () => {
  fc.assert(
    fc.property(resource, (given) => {
      expect(decodeResource(resourceType(given), encodeResource(given))).toEqual(given);
    }),
    { numRuns: 500 },
  );
});

test('equal workloads give equal bytes, in whatever order their services were found', () => {
  fc.assert(
    fc.property(workload, (given) => {
      const reversed = { ...given, services: new Map([...given.services].reverse()) };
      expect(encodeResource(reversed)).toEqual(encodeResource(given));
    }),
  );
});

test('random bytes give a resource or a ResourceError, nothing else', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc
      .tuple(resource, fc.nat(), fc.integer({ min: 0, max: 255 }))
      .map(([given, at, value]) => withByte(encodeResource(given), at, value)),
  );
  fc.assert(
    fc.property(fc.constantFrom(ADDRESS_TYPE, AUTHORIZATION_TYPE), bytes, (type, given) => {
      try {
        encodeResource(decodeResource(type, given));
      } catch (error) {
        expect(error).toBeInstanceOf(ResourceError);
      }
    }),
    { numRuns: 2000 },
  );
});

test('empty fields of a workload take their defaults', () => {
  expect(decodeResource(ADDRESS_TYPE, wireWorkload({ uid: 'u' }))).toMatchObject({
    trustDomain: 'cluster.local',
    serviceAccount: 'default',
    clusterId: 'Kubernetes',
    capacity: 1,
    locality: { region: '', zone: '', subzone: '' },
    tunnelProtocol: 'NONE',
    status: 'HEALTHY',
  });
});

test('a trust domain of cluster.local and a capacity of 1 are left out on the wire', () => {
  const given = decodeResource(ADDRESS_TYPE, wireWorkload({ uid: 'u' }));
  const { type } = fromBinary(AddressSchema, encodeResource(given));
  expect(type.value).toMatchObject({ trustDomain: '' });
  expect(type.value).not.toHaveProperty('capacity');
});

test('a workload has an extension only when it wants a tunnel on its own node, and whatever that says means so', () => {
  const message = create(WorkloadSchema, { uid: 'w' });
  expect(decodeWorkload(message, new Faults())).not.toHaveProperty('sameNode');
  const other = create(WorkloadSchema, { uid: 'w', extensions: [{ name: 'example.com/other' }] });
  expect(decodeWorkload(other, new Faults())).not.toHaveProperty('sameNode');
  const ours = create(WorkloadSchema, { uid: 'w', extensions: [{ name: 'tulle.dev/same-node' }] });
  expect(decodeWorkload(ours, new Faults()).sameNode).toBe('tunnel');
  const plain = decodeWorkload(message, new Faults());
  expect(encodeWorkload(plain).extensions).toEqual([]);
  expect(encodeWorkload({ ...plain, sameNode: 'tunnel' }).extensions).toMatchObject([
    { name: 'tulle.dev/same-node', config: { typeUrl: 'type.googleapis.com/google.protobuf.StringValue' } },
  ]);
});

test('a workload is spliced only when its extension says true', () => {
  const spliceOf = (config?: Any) => {
    const extensions = [{ name: 'tulle.dev/splice', ...(config && { config }) }];
    return decodeWorkload(create(WorkloadSchema, { uid: 'w', extensions }), new Faults()).splice;
  };
  const saying = (value: string) => anyPack(StringValueSchema, create(StringValueSchema, { value }));
  expect(spliceOf(saying('true'))).toBe(true);
  expect(spliceOf(saying('yes'))).toBeUndefined();
  expect(spliceOf(anyPack(BoolValueSchema, create(BoolValueSchema, { value: true })))).toBeUndefined();
  expect(spliceOf({ ...saying('true'), value: Uint8Array.of(0xff) })).toBeUndefined();
  expect(spliceOf()).toBeUndefined();
});

test('an unknown visibility of a service is public', () => {
  const bytes = wireService({ namespace: 'a', hostname: 'b', visibility: 9 as 0 });
  expect(decodeResource(ADDRESS_TYPE, bytes)).toMatchObject({ visibility: 'PUBLIC' });
});

test('an IPv4-mapped prefix becomes the IPv4 prefix that it is', () => {
  const mapped = Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 0]);
  const bytes = wireMatch({ sourceIps: [{ address: mapped, length: 104 }] });
  const cidrs = [{ address: '10.0.0.0', length: 8 }];
  expect(decodeResource(AUTHORIZATION_TYPE, bytes)).toMatchObject({
    rules: [{ clauses: [{ matches: [{ sourceIps: cidrs }] }] }],
  });
});

describe('a resource is rejected with the path and the reason', () => {
  const unknown = 99 as 0;
  test.each([
    { when: 'it is neither', bytes: new Uint8Array(), reason: 'neither a workload nor a service' },
    {
      when: 'a workload has no uid',
      bytes: wireWorkload({ name: 'w' }),
      reason: 'workload.uid: is missing',
    },
    {
      when: 'an address has 3 bytes',
      bytes: wireWorkload({ uid: 'u', addresses: [new Uint8Array(4), new Uint8Array(3)] }),
      reason: 'workload.addresses[1]: 3 bytes are not an IP address',
    },
    {
      when: 'the tunnel protocol is unknown',
      bytes: wireWorkload({ uid: 'u', tunnelProtocol: unknown }),
      reason: 'workload.tunnelProtocol: unknown enum value 99',
    },
    {
      when: 'the tunnel protocol is the legacy one',
      bytes: wireWorkload({ uid: 'u', tunnelProtocol: 2 }),
      reason: 'workload.tunnelProtocol: unknown enum value 2',
    },
    {
      when: 'the status is unknown',
      bytes: wireWorkload({ uid: 'u', status: unknown }),
      reason: 'workload.status: unknown enum value 99',
    },
    {
      when: 'the workload type is unknown',
      bytes: wireWorkload({ uid: 'u', workloadType: unknown }),
      reason: 'workload.workloadType: unknown enum value 99',
    },
    {
      when: 'the network mode is unknown',
      bytes: wireWorkload({ uid: 'u', networkMode: unknown }),
      reason: 'workload.networkMode: unknown enum value 99',
    },
    {
      when: 'the application tunnel is unknown',
      bytes: wireWorkload({ uid: 'u', applicationTunnel: { protocol: unknown } }),
      reason: 'workload.applicationTunnel.protocol: unknown enum value 99',
    },
    {
      when: 'a service is named without a slash',
      bytes: wireWorkload({ uid: 'u', services: { web: {} } }),
      reason: 'workload.services["web"]: is not of the form namespace/hostname',
    },
    {
      when: 'a waypoint has no destination',
      bytes: wireWorkload({ uid: 'u', waypoint: { hboneMtlsPort: 15008 } }),
      reason: 'workload.waypoint: has no destination',
    },
    {
      when: 'a port is none',
      bytes: wireWorkload({ uid: 'u', services: { 'a/b': { ports: [{ servicePort: 70_000 }] } } }),
      reason: 'workload.services["a/b"].ports[0].servicePort: 70000 is not a port',
    },
    {
      when: 'a VIP has no bytes',
      bytes: wireService({ namespace: 'a', hostname: 'b', addresses: [{}] }),
      reason: 'service.addresses[0].address: 0 bytes are not an IP address',
    },
    {
      when: 'a VIP range is longer than the address',
      bytes: wireService({
        namespace: 'a',
        hostname: 'b',
        addresses: [{ address: ipToBytes('10.0.0.0'), length: 33 }],
      }),
      reason: 'service.addresses[0].length: 33 is not a prefix length',
    },
    {
      when: 'a routing preference is unspecified',
      bytes: wireService({ namespace: 'a', hostname: 'b', loadBalancing: { routingPreference: [4, 0] } }),
      reason: 'service.loadBalancing.routingPreference[1]: unknown enum value 0',
    },
    {
      when: 'the load balancing mode is unknown',
      bytes: wireService({ namespace: 'a', hostname: 'b', loadBalancing: { mode: unknown } }),
      reason: 'service.loadBalancing.mode: unknown enum value 99',
    },
    {
      when: 'the health policy is unknown',
      bytes: wireService({ namespace: 'a', hostname: 'b', loadBalancing: { healthPolicy: unknown } }),
      reason: 'service.loadBalancing.healthPolicy: unknown enum value 99',
    },
    {
      when: 'the IP families are unknown',
      bytes: wireService({ namespace: 'a', hostname: 'b', ipFamilies: unknown }),
      reason: 'service.ipFamilies: unknown enum value 99',
    },
    {
      when: 'a protocol is unknown',
      bytes: wireService({ namespace: 'a', hostname: 'b', ports: [{ appProtocol: unknown }] }),
      reason: 'service.ports[0].appProtocol: unknown enum value 99',
    },
    {
      when: 'a weighted waypoint has no destination',
      bytes: wireService({ namespace: 'a', hostname: 'b', weightedWaypoints: [{ weight: 1 }] }),
      reason: 'service.weightedWaypoints[0].destination: is missing',
    },
    {
      when: 'several things are wrong',
      bytes: wireService({ ipFamilies: unknown }),
      reason:
        'service.namespace: is missing, service.hostname: is missing, service.ipFamilies: unknown enum value 99',
    },
  ])('when $when', ({ bytes, reason }) => {
    expect(() => decodeResource(ADDRESS_TYPE, bytes)).toThrow(new ResourceError(reason, { code: 'INVALID' }));
  });

  test.each([
    {
      when: 'the scope is unknown',
      bytes: wirePolicy({ scope: unknown }),
      reason: 'authorization.scope: unknown enum value 99',
    },
    {
      when: 'the action is unknown',
      bytes: wirePolicy({ action: unknown }),
      reason: 'authorization.action: unknown enum value 99',
    },
    {
      when: 'a string match is empty',
      bytes: wireMatch({ principals: [{}] }),
      reason:
        'rules[0].clauses[0].matches[0].principals[0]: matches nothing: neither exact, prefix, suffix nor presence',
    },
    {
      when: 'an address is none',
      bytes: wireMatch({ notSourceIps: [{ address: new Uint8Array(5), length: 8 }] }),
      reason: 'rules[0].clauses[0].matches[0].notSourceIps[0].address: 5 bytes are not an IP address',
    },
  ])('when $when', ({ bytes, reason }) => {
    expect(() => decodeResource(AUTHORIZATION_TYPE, bytes)).toThrow(
      expect.objectContaining({ message: expect.stringContaining(reason), code: 'INVALID' }),
    );
  });

  test('when it is garbage', () => {
    expect(() => decodeResource(ADDRESS_TYPE, Uint8Array.from([0xff]))).toThrow(
      expect.objectContaining({ code: 'MALFORMED' }),
    );
  });
});

function withByte(bytes: Uint8Array, at: number, value: number): Uint8Array {
  const changed = Uint8Array.from(bytes);
  if (changed.length > 0) changed[at % changed.length] = value;
  return changed;
}

function wireWorkload(value: MessageInitShape<typeof WorkloadSchema>): Uint8Array {
  return toBinary(
    AddressSchema,
    create(AddressSchema, { type: { case: 'workload', value: create(WorkloadSchema, value) } }),
  );
}

function wireService(value: MessageInitShape<typeof ServiceSchema>): Uint8Array {
  return toBinary(
    AddressSchema,
    create(AddressSchema, { type: { case: 'service', value: create(ServiceSchema, value) } }),
  );
}

function wirePolicy(value: MessageInitShape<typeof AuthorizationSchema>): Uint8Array {
  return toBinary(AuthorizationSchema, create(AuthorizationSchema, { name: 'p', namespace: 'a', ...value }));
}

function wireMatch(value: Partial<Record<keyof Match, unknown>>): Uint8Array {
  return wirePolicy({ rules: [{ clauses: [{ matches: [value] }] }] } as MessageInitShape<
    typeof AuthorizationSchema
  >);
}
