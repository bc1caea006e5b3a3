import { isIp, parseIp } from '#api/address.ts';
import type { Locality, PortMapping, Workload } from '#api/workload.ts';
import type {
  EndpointSliceObject,
  ServiceEntryObject,
  StringMap,
  WorkloadEntryObject,
  WorkloadEntrySpec,
} from '../source/objects.ts';
import { objectKey } from '../source/objects.ts';
import type { Context, Derived } from './context.ts';
import { problemAt } from './problems.ts';
import type { ServiceInfo } from './services.ts';
import { canonicalService, entryWorkloadName } from './workload-name.ts';
import {
  commonFields,
  type Lookups,
  mapPorts,
  selectingServices,
  serviceOfSlice,
  tunnelOf,
} from './workloads.ts';

/** The workload of a WorkloadEntry. Its labels stand in two places; those of the metadata win. */
export function deriveWorkloadEntry(
  context: Context,
  lookups: Lookups,
  entry: WorkloadEntryObject,
): Workload {
  const { metadata, spec } = entry;
  const labels: StringMap = new Map([...spec.labels, ...metadata.labels]);
  const workloadName = entryWorkloadName(metadata, labels);
  const services = selectingServices(lookups, metadata.namespace, labels);
  return {
    ...commonFields(context, lookups, entry, { ...metadata, labels }),
    ...entryFields(context, spec),
    uid: `${context.clusterId}/networking.istio.io/WorkloadEntry/${metadata.namespace}/${metadata.name}`,
    name: metadata.name,
    namespace: metadata.namespace,
    ...tunnelOf({ labels, annotations: metadata.annotations }),
    ...canonicalService(labels, workloadName),
    workloadName,
    services: mapPorts(services, (info) => entryPorts(info, spec)),
  };
}

/**
 * Workloads of a ServiceEntry's endpoints; of its hosts where it has none and names are to be resolved. `services` are
 * what it has become: hosts that belong to another object have no endpoints here.
 */
export function deriveEndpoints(
  context: Context,
  lookups: Lookups,
  entry: ServiceEntryObject,
  services: readonly ServiceInfo[],
): readonly Derived<Workload>[] {
  if (services.length === 0) return [];
  const { endpoints, resolution, workloadSelector } = entry.spec;
  const origin = (path: string) => ({ object: objectKey(entry), position: entry.positionOf(path) });
  if (endpoints.length > 0) {
    const seen = new Set<string>();
    return endpoints.flatMap((endpoint, index) => {
      const path = `spec.endpoints[${index}]`;
      if (seen.has(endpoint.address)) return reportTwin(context, entry, path, endpoint.address);
      seen.add(endpoint.address);
      const resource = deriveEndpoint(context, lookups, entry, endpoint, endpoint.labels, services);
      return [{ resource, origin: origin(path), source: entry }];
    });
  }
  const resolves = resolution === 'DNS' || resolution === 'DNS_ROUND_ROBIN' || resolution === 'DYNAMIC_DNS';
  if (!resolves || workloadSelector !== undefined) return [];
  return services.map((info) => {
    const endpoint: WorkloadEntrySpec = { ...NO_ENDPOINT, address: info.service.hostname };
    const resource = deriveEndpoint(context, lookups, entry, endpoint, undefined, [info]);
    return { resource, origin: origin('spec.hosts'), source: entry };
  });
}

/**
 * Workloads of the endpoints of an EndpointSlice that are not pods: all that is known of them is their address, which
 * others may have as well.
 */
export function deriveSlice(
  context: Context,
  services: ReadonlyMap<string, ServiceInfo>,
  slice: EndpointSliceObject,
): readonly Derived<Workload>[] {
  const info = slice.addressType === 'FQDN' ? undefined : serviceOfSlice(context, services, slice);
  if (info === undefined) return [];
  const ports = slicePorts(info, slice);
  const seen = new Set<string>();
  return slice.endpoints.flatMap((endpoint, index) => {
    const [address] = endpoint.addresses;
    const isOther = endpoint.targetRef?.kind !== 'Pod' && endpoint.addresses.every(isIp);
    if (!isOther || address === undefined || seen.has(address)) return [];
    seen.add(address);
    const { name, namespace } = slice.metadata;
    const resource: Workload = {
      ...opaqueFields(context),
      uid: `${context.clusterId}/discovery.k8s.io/EndpointSlice/${namespace}/${name}/${address}`,
      name,
      namespace,
      addresses: endpoint.addresses.map(parseIp),
      services: new Map([[info.key, ports]]),
      status: endpoint.ready ? 'HEALTHY' : 'UNHEALTHY',
    };
    const position = slice.positionOf(`endpoints[${index}]`);
    return [{ resource, origin: { object: objectKey(slice), position }, source: slice }];
  });
}

const NO_ENDPOINT: WorkloadEntrySpec = {
  address: '',
  ports: new Map(),
  labels: new Map(),
  network: '',
  locality: '',
  serviceAccount: '',
};

/**
 * `labels` are those of the endpoint and only bind a waypoint (undefined: none can); names and policies go by those of
 * the ServiceEntry.
 */
function deriveEndpoint(
  context: Context,
  lookups: Lookups,
  entry: ServiceEntryObject,
  endpoint: WorkloadEntrySpec,
  labels: StringMap | undefined,
  services: readonly ServiceInfo[],
): Workload {
  const { name, namespace, labels: entryLabels, annotations } = entry.metadata;
  const bindable = { namespace, annotations, labels: labels ?? new Map([['istio.io/use-waypoint', 'none']]) };
  return {
    ...commonFields(context, lookups, entry, bindable),
    ...entryFields(context, endpoint),
    uid: `${context.clusterId}/networking.istio.io/ServiceEntry/${namespace}/${name}/${endpoint.address}`,
    name,
    namespace,
    ...tunnelOf(entry.metadata),
    ...canonicalService(entryLabels, name),
    workloadName: name,
    services: mapPorts(services, (info) => entryPorts(info, endpoint)),
    authorizationPolicies: lookups.policiesOf(namespace, entryLabels),
  };
}

/** What a WorkloadEntry, alone or inside a ServiceEntry, says of itself. */
function entryFields(
  context: Context,
  spec: WorkloadEntrySpec,
): Pick<Workload, 'addresses' | 'hostname' | 'network' | 'serviceAccount' | 'locality' | 'capacity'> {
  const hasIp = isIp(spec.address);
  return {
    addresses: hasIp ? [parseIp(spec.address)] : [],
    hostname: hasIp ? '' : spec.address,
    network: spec.network || context.network,
    serviceAccount: spec.serviceAccount,
    locality: splitLocality(spec.locality),
    capacity: spec.weight || 1,
  };
}

/** `region/zone/subzone`, from the left as far as it is written. */
function splitLocality(text: string): Locality {
  const [region = '', zone = '', subzone = ''] = text.split('/');
  return { region, zone, subzone };
}

/** The ports that an entry names stand for those of the service by the same name. */
function entryPorts(info: ServiceInfo, spec: WorkloadEntrySpec): readonly PortMapping[] {
  return info.service.ports.flatMap(({ servicePort, targetPort }) => {
    const { name = '', targetName = '' } = info.portNames.get(servicePort) ?? {};
    const port = spec.ports.get(targetName || name);
    if (targetName !== '' && port === undefined) return [];
    return [{ servicePort, targetPort: port ?? targetPort }];
  });
}

/** A slice names the ports of its service, and says which port of the endpoints is meant. */
function slicePorts(info: ServiceInfo, slice: EndpointSliceObject): readonly PortMapping[] {
  return slice.ports.flatMap(({ name, port, protocol }) => {
    if (protocol !== 'TCP') return [];
    const match = info.service.ports.find(
      ({ servicePort }) => info.portNames.get(servicePort)?.name === name,
    );
    return match === undefined ? [] : [{ servicePort: match.servicePort, targetPort: port }];
  });
}

function opaqueFields(context: Context): Omit<Workload, 'uid' | 'name' | 'namespace'> {
  return {
    kind: 'workload',
    addresses: [],
    hostname: '',
    network: context.network,
    tunnelProtocol: 'NONE',
    trustDomain: context.settings.trustDomain,
    serviceAccount: '',
    node: '',
    canonicalName: '',
    canonicalRevision: '',
    workloadType: 'DEPLOYMENT',
    workloadName: '',
    nativeTunnel: false,
    services: new Map(),
    authorizationPolicies: [],
    status: 'HEALTHY',
    clusterId: context.clusterId,
    locality: { region: '', zone: '', subzone: '' },
    networkMode: 'HOST_NETWORK',
    capacity: 1,
  };
}

function reportTwin(context: Context, entry: ServiceEntryObject, path: string, address: string): readonly [] {
  context.report(
    problemAt(entry, {
      path,
      message: `a second endpoint with the address ${address}`,
      severity: 'error',
      effect: 'the first endpoint with that address holds',
    }),
  );
  return [];
}
