import type { ListenerMetadata } from '#api/envoy/metadata.ts';
import type { AppProtocol, ServicePort } from '#api/service.ts';
import type { ServiceInfo } from '../services.ts';
import { buildListener, type TcpChain } from './listeners.ts';
import type { Built } from './messages.ts';
import { clusterName, type ListenerKind, listenerName } from './names.ts';
import { patienceFields } from './route-actions.ts';
import { buildRoutes, type RouteInit } from './route-configurations.ts';
import { originOf, type ServiceBook } from './service-book.ts';

/** What is the same for all ports of a service at a waypoint. */
export type FrontendPolicy = Pick<ListenerMetadata, 'authorizations' | 'refuse'>;

/** A port of a service without routes: everything goes to its own endpoints. */
export function buildPlainFrontend(
  book: ServiceBook,
  info: ServiceInfo,
  port: ServicePort,
  policy: FrontendPolicy,
): readonly Built[] {
  const kind = kindOf(port.appProtocol);
  const name = listenerName(info.service, port.servicePort, kind);
  const origin = originOf(info);
  const metadata = { ...metadataOf(info, port.servicePort), ...policy };
  const listener = buildListener({ name, kind, metadata, chains: ownChains(name, kind, info, port), origin });
  const routes = hasRoutes(kind) ? [buildRoutes(name, [ownRoute(book, info, port)], origin)] : [];
  return [listener, ...routes, ...book.clusterOf(info, port)];
}

/** What a port's protocol makes of its listener. */
export function kindOf(protocol: AppProtocol): ListenerKind {
  switch (protocol) {
    case 'HTTP11':
    case 'HTTP2':
    case 'GRPC':
      return 'http';
    case 'TCP':
      return 'tcp';
    case 'TLS':
      return 'tls';
    case 'UNKNOWN':
      return 'auto';
  }
}

/** Whether a listener has a RouteConfiguration. */
export function hasRoutes(kind: ListenerKind): boolean {
  return kind === 'http' || kind === 'auto';
}

/** Where the service stands in the mesh: its VIPs, and its name. */
export function metadataOf({ key, service }: ServiceInfo, port: number): ListenerMetadata {
  const vips = service.addresses.filter(({ length }) => length === undefined).map(({ ip }) => ip);
  return { service: key, addresses: [...vips, service.hostname], port };
}

/** The chains of a listener whose connections that are no HTTP go to the service itself. */
export function ownChains(
  name: string,
  kind: ListenerKind,
  { service }: ServiceInfo,
  port: ServicePort,
): readonly TcpChain[] {
  if (kind === 'http') return [];
  const clusters = [{ name: clusterName(service, port.servicePort), weight: 1 }];
  return [{ name: `${name}|tcp`, serverNames: [], clusters, metadata: {} }];
}

/** Everything to the service itself. */
export function ownRoute(book: ServiceBook, info: ServiceInfo, port: ServicePort): RouteInit {
  return {
    name: 'default',
    match: { pathSpecifier: { case: 'prefix', value: '/' } },
    action: {
      case: 'route',
      value: {
        clusterSpecifier: { case: 'cluster', value: clusterName(info.service, port.servicePort) },
        ...patienceFields({ requestMs: 0, tryMs: 0 }),
        hashPolicy: [...book.balancingOf(info).hashPolicy],
      },
    },
  };
}
