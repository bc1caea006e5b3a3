import { type Cidr, parseCidr, parseIp } from '#api/address.ts';
import { type Authorization, EMPTY_MATCH, type Match, type StringMatch } from '#api/policy.ts';
import type { LoadBalancing, NetworkAddress, Service, ServicePort } from '#api/service.ts';
import type { GatewayAddress, Locality, PortMapping, Workload } from '#api/workload.ts';

/** Resources by name, as `test/fixtures/istiod/workload-api.json` writes them: defaults are left out. */
export interface RecordedResources {
  readonly Address: Readonly<
    Record<string, { readonly workload?: RecordedWorkload; readonly service?: RecordedService }>
  >;
  readonly Authorization: Readonly<Record<string, RecordedPolicy>>;
}

interface RecordedGateway {
  readonly hostname: { readonly namespace: string; readonly hostname: string };
  readonly hboneMtlsPort: number;
}

type RecordedWorkload = Partial<Omit<Workload, 'services' | 'waypoint' | 'locality' | 'capacity'>> & {
  readonly services?: Readonly<Record<string, { readonly ports: readonly PortMapping[] }>>;
  readonly waypoint?: RecordedGateway;
  readonly locality?: Partial<Locality>;
  readonly capacity?: { readonly value: number };
};

type RecordedService = Partial<Omit<Service, 'addresses' | 'ports' | 'waypoint' | 'loadBalancing'>> & {
  readonly addresses?: readonly { network?: string; address: string; length?: number }[];
  readonly ports?: readonly Partial<ServicePort>[];
  readonly waypoint?: RecordedGateway;
  readonly loadBalancing?: Partial<LoadBalancing>;
};

type RecordedPolicy = Partial<Omit<Authorization, 'rules'>> & {
  readonly rules?: readonly {
    readonly clauses?: readonly { readonly matches?: readonly RecordedMatch[] }[];
  }[];
};

type RecordedString = { exact: string } | { prefix: string } | { suffix: string } | { presence: object };
type StringField = 'namespaces' | 'notNamespaces' | 'principals' | 'notPrincipals';
type CidrField = 'sourceIps' | 'notSourceIps' | 'destinationIps' | 'notDestinationIps';
type RecordedMatch = Partial<
  Omit<Match, StringField | CidrField> &
    Record<StringField, readonly RecordedString[]> &
    Record<CidrField, readonly Cidr[]>
>;

/** The recorded workloads and services, with defaults filled in. */
export function recordedAddresses(recorded: RecordedResources): Map<string, Workload | Service> {
  return new Map(
    Object.entries(recorded.Address).map(([name, { workload, service }]) => [
      name,
      workload ? readWorkload(workload) : readService(service ?? {}),
    ]),
  );
}

/** The recorded policies, with defaults filled in. */
export function recordedAuthorizations(recorded: RecordedResources): Map<string, Authorization> {
  return new Map(
    Object.entries(recorded.Authorization).map(([name, written]) => [name, readPolicy(written)]),
  );
}

function readWorkload(written: RecordedWorkload): Workload {
  const { waypoint, services = {}, capacity, locality, addresses = [], ...rest } = written;
  return {
    kind: 'workload',
    uid: '',
    name: '',
    namespace: '',
    hostname: '',
    network: '',
    tunnelProtocol: 'NONE',
    trustDomain: 'cluster.local',
    serviceAccount: '',
    node: '',
    canonicalName: '',
    canonicalRevision: '',
    workloadType: 'DEPLOYMENT',
    workloadName: '',
    nativeTunnel: false,
    authorizationPolicies: [],
    status: 'HEALTHY',
    clusterId: '',
    networkMode: 'STANDARD',
    ...rest,
    addresses: addresses.map(parseIp),
    locality: { region: '', zone: '', subzone: '', ...locality },
    capacity: capacity?.value ?? 1,
    services: new Map(Object.entries(services).map(([key, { ports }]) => [key, ports])),
    ...(waypoint && { waypoint: readGateway(waypoint) }),
  };
}

function readService(written: RecordedService): Service {
  const { waypoint, addresses = [], ports = [], loadBalancing, ...rest } = written;
  return {
    kind: 'service',
    name: '',
    namespace: '',
    hostname: '',
    subjectAltNames: [],
    weightedWaypoints: [],
    ipFamilies: 'AUTOMATIC',
    canonical: false,
    ingressUseWaypoint: false,
    visibility: 'PUBLIC',
    ...rest,
    addresses: addresses.map(
      ({ address, network = '', length }): NetworkAddress => ({
        network,
        ip: parseIp(address),
        ...(length !== undefined && { length }),
      }),
    ),
    ports: ports.map((port) => ({ servicePort: 0, targetPort: 0, appProtocol: 'UNKNOWN', ...port })),
    ...(loadBalancing && {
      loadBalancing: {
        routingPreference: [],
        mode: 'UNSPECIFIED',
        healthPolicy: 'ONLY_HEALTHY',
        ...loadBalancing,
      },
    }),
    ...(waypoint && { waypoint: readGateway(waypoint) }),
  };
}

function readGateway({ hostname, hboneMtlsPort }: RecordedGateway): GatewayAddress {
  return { destination: { kind: 'hostname', ...hostname }, hboneMtlsPort };
}

function readPolicy({ rules = [], ...rest }: RecordedPolicy): Authorization {
  return {
    kind: 'authorization',
    name: '',
    namespace: '',
    scope: 'GLOBAL',
    action: 'ALLOW',
    dryRun: false,
    ...rest,
    rules: rules.map(({ clauses = [] }) => ({
      clauses: clauses.map(({ matches = [] }) => ({ matches: matches.map(readMatch) })),
    })),
  };
}

function readMatch(written: RecordedMatch): Match {
  return {
    ...EMPTY_MATCH,
    ...written,
    namespaces: readStrings(written.namespaces),
    notNamespaces: readStrings(written.notNamespaces),
    principals: readStrings(written.principals),
    notPrincipals: readStrings(written.notPrincipals),
    sourceIps: readCidrs(written.sourceIps),
    notSourceIps: readCidrs(written.notSourceIps),
    destinationIps: readCidrs(written.destinationIps),
    notDestinationIps: readCidrs(written.notDestinationIps),
  };
}

function readStrings(written: readonly RecordedString[] = []): readonly StringMatch[] {
  return written.map((match) => {
    if ('exact' in match) return { kind: 'exact', value: match.exact };
    if ('prefix' in match) return { kind: 'prefix', value: match.prefix };
    if ('suffix' in match) return { kind: 'suffix', value: match.suffix };
    return { kind: 'presence' };
  });
}

function readCidrs(written: readonly Cidr[] = []): readonly Cidr[] {
  return written.map(({ address, length }) => parseCidr(`${address}/${length}`));
}
