import type { EnvoyType } from '#api/envoy/types.ts';
import type { Workload } from '#api/workload.ts';
import { objectKey } from '../../source/objects.ts';
import type { Context, Derived, Origin } from '../context.ts';
import { getOrAdd } from '../selectors.ts';
import type { ServiceInfo } from '../services.ts';
import type { PortTls, TlsBook } from './backend-tls.ts';
import { readBalancing, type ServiceBalancing } from './balancing.ts';
import { draftCluster } from './clusters.ts';
import { drainingWorkloads } from './draining.ts';
import { draftEndpoints, type EndpointWorkload } from './endpoints.ts';
import type { Built, Draft } from './messages.ts';
import { type Target, targetName } from './target.ts';

/** The services of the mesh, and the clusters that stand for their ports; each is made once, whoever needs it. */
export interface ServiceBook {
  readonly context: Context;
  readonly serviceOf: (key: string) => ServiceInfo | undefined;
  readonly balancingOf: (info: ServiceInfo) => ServiceBalancing;
  /** The cluster of a port and its endpoints. */
  readonly clusterOf: (target: Target) => readonly Draft[];
  readonly membersOf: (key: string) => readonly EndpointWorkload[];
}

/** Opens the book. */
export function openServiceBook(
  context: Context,
  services: ReadonlyMap<string, ServiceInfo>,
  workloads: readonly Derived<Workload>[],
  tls: TlsBook,
): ServiceBook {
  const members = indexMembers(context, workloads);
  const balancing = new Map<ServiceInfo, ServiceBalancing>();
  const clusters = new Map<string, readonly Draft[]>();
  const membersOf = (key: string): readonly EndpointWorkload[] => members.get(key) ?? [];
  const balancingOf = (info: ServiceInfo): ServiceBalancing =>
    getOrAdd(balancing, info, () => readBalancing(context, info.object));
  return {
    context,
    serviceOf: (key) => services.get(key),
    balancingOf,
    membersOf,
    clusterOf: (target) =>
      getOrAdd(clusters, targetName(target), () => {
        const { info, port } = target;
        const how = { ...balancingOf(info), tls: tls.of(info, port.servicePort) };
        return makeCluster(target, how, membersOf(info.key));
      }),
  };
}

/** Where a service is written. */
export function originOf({ object }: ServiceInfo): Origin {
  return { object: objectKey(object), position: object.position };
}

/** By type and name, each sorted by name. */
export function sortBuilt(
  built: Iterable<Built>,
  types: readonly EnvoyType[],
): ReadonlyMap<EnvoyType, ReadonlyMap<string, Built>> {
  const byType = new Map<EnvoyType, Map<string, Built>>(types.map((type) => [type, new Map()]));
  for (const one of built) byType.get(one.resource.type)?.set(one.resource.name, one);
  return new Map(
    [...byType].map(([type, named]) => [type, new Map([...named].sort(([a], [b]) => (a < b ? -1 : 1)))]),
  );
}

function makeCluster(
  target: Target,
  { balancing, tls }: Pick<ServiceBalancing, 'balancing'> & { readonly tls: PortTls },
  members: readonly EndpointWorkload[],
): readonly Draft[] {
  const { info, port, overHttp2 } = target;
  const { service } = info;
  const name = targetName(target);
  const origin = originOf(info);
  const metadata = {
    backend: `${service.namespace}/${service.name}:${port.servicePort}`,
    service: info.key,
  };
  return [
    draftCluster({
      name,
      metadata,
      protocol: overHttp2 ? 'HTTP2' : port.appProtocol,
      balancing,
      origin,
      ...(tls.kind === 'tls' && { transportSocket: tls.socket }),
    }),
    // Nothing goes out in plain text that was to be protected.
    draftEndpoints(name, service, port, tls.kind === 'broken' ? [] : members, origin),
  ];
}

function indexMembers(
  context: Context,
  workloads: readonly Derived<Workload>[],
): ReadonlyMap<string, readonly EndpointWorkload[]> {
  const isDraining = drainingWorkloads(context);
  const members = new Map<string, EndpointWorkload[]>();
  for (const derived of workloads)
    for (const key of derived.resource.services.keys())
      getOrAdd(members, key, () => []).push({
        workload: derived.resource,
        draining: isDraining(derived, key),
      });
  for (const list of members.values())
    list.sort((a, b) => (a.workload.uid < b.workload.uid ? -1 : a.workload.uid > b.workload.uid ? 1 : 0));
  return members;
}
