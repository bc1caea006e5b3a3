import type { AppProtocol } from '#api/service.ts';
import { objectKey, type RouteObject } from '../../source/objects.ts';
import type { ParentRef } from '../../source/route-objects.ts';
import type { ServiceInfo } from '../services.ts';
import type { RouteCondition } from './attached.ts';

/** A port of a service that a route holds for. */
export interface ServicePortRef {
  readonly service: ServiceInfo;
  readonly port: number;
}

/** What a parentRef comes to. `foreign`: not for us to answer, as a Gateway that others serve. */
export type ParentResult =
  | { readonly kind: 'ports'; readonly ports: readonly ServicePortRef[] }
  | { readonly kind: 'rejected'; readonly reason: RouteCondition['reason']; readonly message: string }
  | { readonly kind: 'foreign'; readonly message: string };

/** Finds what routes may be attached to. */
export interface ParentIndex {
  readonly resolve: (route: RouteObject, ref: ParentRef) => ParentResult;
}

/**
 * Parents are Services, and ServiceEntries with all their hosts. `headless` and `externalNames` are keys of Services
 * (`Service pay/ledger`) that exist and cannot be parents.
 */
export function indexParents(
  services: Iterable<ServiceInfo>,
  unfit: ReadonlyMap<string, string>,
): ParentIndex {
  const byObject = Map.groupBy(services, ({ object }) => objectKey(object));
  return {
    resolve: (route, ref) => {
      const kind = parentKind(ref);
      if (kind === undefined) return notOurs(ref);
      const key = objectKey({ kind, metadata: ref });
      const reason = unfit.get(key);
      if (reason !== undefined)
        return rejected('UnsupportedValue', `${key} ${reason}, so it cannot be a parent`);
      return selectPorts(route, ref, key, byObject.get(key) ?? []);
    },
  };
}

function parentKind({ group, kind }: ParentRef): 'Service' | 'ServiceEntry' | undefined {
  if (group === '' && kind === 'Service') return 'Service';
  return group === 'networking.istio.io' && kind === 'ServiceEntry' ? 'ServiceEntry' : undefined;
}

function notOurs({ group, kind, name }: ParentRef): ParentResult {
  if (group === '')
    return rejected('NoMatchingParent', `${kind} ${name} cannot be a parent, only a Service can`);
  if (kind === 'Service') {
    const remedy = 'write group: "" for a Service';
    return { kind: 'foreign', message: `parent Service ${name} of group ${group} is not ours; ${remedy}` };
  }
  const message = `parent ${kind} ${name} is not ours to serve; routes of the mesh have a Service as parent`;
  return { kind: 'foreign', message };
}

function rejected(reason: string, message: string): ParentResult {
  return { kind: 'rejected', reason, message };
}

function selectPorts(
  route: RouteObject,
  ref: ParentRef,
  key: string,
  services: readonly ServiceInfo[],
): ParentResult {
  if (services.length === 0) return rejected('NoMatchingParent', `there is no ${key}`);
  const isNamed = ref.port !== undefined || ref.sectionName !== undefined;
  const ports = services.flatMap((service) =>
    streamPorts(service)
      .filter(({ servicePort, appProtocol }) =>
        isNamed ? isSelected(service, servicePort, ref) : speaks(route.kind, appProtocol),
      )
      .map(({ servicePort }): ServicePortRef => ({ service, port: servicePort })),
  );
  if (ports.length > 0) return { kind: 'ports', ports };
  return rejected('NoMatchingParent', noPort(route, ref, key));
}

function noPort(route: RouteObject, { port, sectionName }: ParentRef, key: string): string {
  if (port === undefined && sectionName === undefined)
    return `no port of ${key} is declared to speak what a ${route.kind} routes; name a port`;
  const wanted = [
    ...(port === undefined ? [] : [String(port)]),
    ...(sectionName === undefined ? [] : [`named ${sectionName}`]),
  ];
  return `${key} has no TCP port ${wanted.join(' ')}`;
}

function isSelected({ portNames }: ServiceInfo, servicePort: number, ref: ParentRef): boolean {
  const isPort = ref.port === undefined || ref.port === servicePort;
  return isPort && (ref.sectionName === undefined || portNames.get(servicePort)?.name === ref.sectionName);
}

/** Ports that carry streams, each once; what is UDP only has no routes. */
function streamPorts({ service, object }: ServiceInfo): ServiceInfo['service']['ports'] {
  const streams = new Set<number>();
  if (object.kind === 'Service') {
    for (const { port, protocol } of object.spec.ports) if (protocol === 'TCP') streams.add(port);
  } else {
    for (const { number, protocol } of object.spec.ports)
      if (protocol.toUpperCase() !== 'UDP') streams.add(number);
  }
  return service.ports.filter(({ servicePort }) => streams.delete(servicePort));
}

/**
 * Whether a route without a port holds for a port of that protocol: one that is declared to speak something else would only be
 * broken by it.
 */
function speaks(kind: RouteObject['kind'], protocol: AppProtocol): boolean {
  switch (kind) {
    case 'HTTPRoute':
    case 'GRPCRoute':
      return protocol !== 'TCP' && protocol !== 'TLS';
    case 'TLSRoute':
      return protocol === 'TLS' || protocol === 'UNKNOWN';
    case 'TCPRoute':
      return true;
  }
}
