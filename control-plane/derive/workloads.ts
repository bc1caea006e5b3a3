import { isIp, parseIp } from '#api/address.ts';
import type { Locality, PortMapping, Workload } from '#api/workload.ts';
import type { PodObject, StringMap } from '../source/objects.ts';
import { reportBinding } from './binding-problems.ts';
import type { Context } from './context.ts';
import { compareText } from './inventory.ts';
import { spliceOf } from './kernel-splice.ts';
import { sameNodeOf } from './same-node.ts';
import { getOrAdd, indexSelectors, type SelectorIndex } from './selectors.ts';
import { type ServiceInfo, serviceHostname } from './services.ts';
import { type Bindable, bindingAddress, bindWorkload } from './waypoint-binding.ts';
import { instanceOf } from './waypoints.ts';
import { canonicalService, podWorkloadName } from './workload-name.ts';

/** Label of an EndpointSlice that names its Service. */
const SLICE_SERVICE = 'kubernetes.io/service-name';
const NOWHERE: Locality = { region: '', zone: '', subzone: '' };

/** Finds what belongs to a workload. */
export interface Lookups {
  readonly serviceByKey: ReadonlyMap<string, ServiceInfo>;
  /** Services that select the labels, by namespace. */
  readonly servicesByNamespace: ReadonlyMap<string, SelectorIndex<ServiceInfo>>;
  /** Services that name a pod in an EndpointSlice, by `namespace/name` of the pod. */
  readonly servicesByPod: ReadonlyMap<string, readonly ServiceInfo[]>;
  /** Names of the policies that a workload has to list. */
  readonly policiesOf: (namespace: string, labels: StringMap) => readonly string[];
}

/** Prepares the look-ups for {@link derivePod} and its like. */
export function prepareLookups(
  context: Context,
  services: ReadonlyMap<string, ServiceInfo>,
  policiesOf: Lookups['policiesOf'],
): Lookups {
  const selecting = [...services.values()].flatMap((info) =>
    info.selector === undefined ? [] : [{ matchLabels: info.selector, value: info }],
  );
  const byNamespace = Map.groupBy(selecting, ({ value }) => value.service.namespace);
  return {
    serviceByKey: services,
    servicesByNamespace: new Map([...byNamespace].map(([name, entries]) => [name, indexSelectors(entries)])),
    servicesByPod: indexSlices(context, services),
    policiesOf,
  };
}

/** The Kubernetes Service that an EndpointSlice belongs to. */
export function serviceOfSlice(
  context: Context,
  services: ReadonlyMap<string, ServiceInfo>,
  slice: { readonly metadata: { readonly namespace: string; readonly labels: StringMap } },
): ServiceInfo | undefined {
  const { namespace, labels } = slice.metadata;
  const name = labels.get(SLICE_SERVICE);
  if (name === undefined) return undefined;
  const info = services.get(`${namespace}/${serviceHostname(name, namespace, context.domain)}`);
  return info?.object.kind === 'Service' ? info : undefined;
}

/** The workload of a pod; undefined if it has ended or has no address yet. */
export function derivePod(context: Context, lookups: Lookups, pod: PodObject): Workload | undefined {
  const { metadata, spec, status } = pod;
  if (hasEnded(pod) || status.podIPs.length === 0 || !status.podIPs.every(isIp)) return undefined;
  const { namespace, labels } = metadata;
  const workloadName = podWorkloadName(metadata);
  const isReady = status.ready && metadata.deletionTimestamp === undefined;
  return {
    ...commonFields(context, lookups, pod, metadata),
    uid: `${context.clusterId}//Pod/${namespace}/${metadata.name}`,
    name: metadata.name,
    namespace,
    addresses: status.podIPs.map(parseIp),
    serviceAccount: spec.serviceAccountName || 'default',
    node: spec.nodeName,
    ...tunnelOf(metadata),
    ...canonicalService(labels, workloadName),
    workloadName,
    services: mapPorts(podServices(lookups, pod), (info) => podPorts(info, pod)),
    status: isReady ? 'HEALTHY' : 'UNHEALTHY',
    locality: localityOfNode(context, spec.nodeName),
    networkMode: spec.hostNetwork ? 'HOST_NETWORK' : 'STANDARD',
    ...sameNodeOf(context, pod),
    ...spliceOf(context, pod),
  };
}

/** Whether a pod will never run again. */
export function hasEnded(pod: PodObject): boolean {
  return pod.status.phase === 'Succeeded' || pod.status.phase === 'Failed';
}

/** Fields that any workload has: defaults, its waypoint, its policies. `object` is what a bad binding is reported at. */
export function commonFields(
  context: Context,
  lookups: Lookups,
  object: Parameters<typeof reportBinding>[1],
  bindable: Bindable,
): Omit<Workload, 'uid' | 'name' | 'namespace' | 'canonicalName' | 'canonicalRevision' | 'workloadName'> {
  const binding = bindWorkload(context.waypoints, bindable);
  reportBinding(context, object, binding);
  const waypoint = bindingAddress(binding);
  const applicationTunnel = instanceOf(context.waypoints, bindable)?.tunnel;
  return {
    kind: 'workload',
    addresses: [],
    hostname: '',
    network: context.network,
    tunnelProtocol: 'NONE',
    trustDomain: context.settings.trustDomain,
    serviceAccount: '',
    ...(waypoint && { waypoint }),
    node: '',
    workloadType: 'POD',
    nativeTunnel: false,
    ...(applicationTunnel && { applicationTunnel }),
    services: new Map(),
    authorizationPolicies: lookups.policiesOf(bindable.namespace, bindable.labels),
    status: 'HEALTHY',
    clusterId: context.clusterId,
    locality: NOWHERE,
    networkMode: 'STANDARD',
    capacity: 1,
  };
}

/** HBONE once the node agent says that it captures the workload, or if the workload itself speaks it. */
export function tunnelOf(object: {
  readonly labels: StringMap;
  readonly annotations: StringMap;
}): Pick<Workload, 'tunnelProtocol' | 'nativeTunnel'> {
  const nativeTunnel = (object.labels.get('networking.istio.io/tunnel') ?? '').split(',').includes('http');
  const isCaptured = object.annotations.get('ambient.istio.io/redirection') === 'enabled';
  return { tunnelProtocol: nativeTunnel || isCaptured ? 'HBONE' : 'NONE', nativeTunnel };
}

/** Port mappings by service, sorted by its key. */
export function mapPorts(
  services: readonly ServiceInfo[],
  portsOf: (info: ServiceInfo) => readonly PortMapping[],
): ReadonlyMap<string, readonly PortMapping[]> {
  const sorted = [...services].sort((a, b) => compareText(a.key, b.key));
  return new Map(sorted.map((info) => [info.key, portsOf(info)]));
}

/** Services of the namespace that select the labels. */
export function selectingServices(
  lookups: Lookups,
  namespace: string,
  labels: StringMap,
): readonly ServiceInfo[] {
  return lookups.servicesByNamespace.get(namespace)?.find(labels) ?? [];
}

function podServices(lookups: Lookups, pod: PodObject): readonly ServiceInfo[] {
  const { namespace, name, labels } = pod.metadata;
  const selecting = selectingServices(lookups, namespace, labels);
  const naming = lookups.servicesByPod.get(`${namespace}/${name}`) ?? [];
  return [...new Set([...selecting, ...naming])];
}

/** A port that goes by a name which the pod does not have is left out. */
function podPorts(info: ServiceInfo, pod: PodObject): readonly PortMapping[] {
  return info.service.ports.flatMap(({ servicePort, targetPort }) => {
    const { name = '', targetName = '' } = info.portNames.get(servicePort) ?? {};
    if (targetName !== '') {
      const port = containerPort(pod, targetName);
      return port === undefined ? [] : [{ servicePort, targetPort: port }];
    }
    const named = info.object.kind === 'ServiceEntry' && name !== '' ? containerPort(pod, name) : undefined;
    return [{ servicePort, targetPort: named ?? targetPort }];
  });
}

function containerPort(pod: PodObject, name: string): number | undefined {
  for (const { ports } of pod.spec.containers)
    for (const port of ports) if (port.name === name && port.protocol === 'TCP') return port.containerPort;
  return undefined;
}

function localityOfNode(context: Context, node: string): Locality {
  const labels = context.inventory.nodes.get(node)?.metadata.labels;
  if (labels === undefined) return NOWHERE;
  return {
    region: labels.get('topology.kubernetes.io/region') ?? '',
    zone: labels.get('topology.kubernetes.io/zone') ?? '',
    subzone: labels.get('topology.istio.io/subzone') ?? '',
  };
}

function indexSlices(
  context: Context,
  services: ReadonlyMap<string, ServiceInfo>,
): ReadonlyMap<string, readonly ServiceInfo[]> {
  const byPod = new Map<string, ServiceInfo[]>();
  for (const slice of context.inventory.endpointSlices) {
    const info = slice.addressType === 'FQDN' ? undefined : serviceOfSlice(context, services, slice);
    if (info === undefined) continue;
    for (const { targetRef } of slice.endpoints)
      if (targetRef?.kind === 'Pod')
        getOrAdd(byPod, `${targetRef.namespace}/${targetRef.name}`, () => []).push(info);
  }
  return byPod;
}
