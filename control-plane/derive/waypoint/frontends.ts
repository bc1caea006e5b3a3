import type { ListenerMetadata } from '#api/envoy/metadata.ts';
import type { AppProtocol } from '#api/service.ts';
import type { AttachedFrontend } from '../routes/attached.ts';
import type { ServiceInfo } from '../services.ts';
import type { FaultTable } from './fault-table.ts';
import type { RouteFaults } from './faults.ts';
import { grpcRoutes, httpRoutes, type MadeRoute, type RouteSetting } from './http-routes.ts';
import { draftListener, type TcpChain } from './listeners.ts';
import { type Draft, ownMetadata } from './messages.ts';
import { clusterName, type ListenerKind, listenerName } from './names.ts';
import type { ListenerPolicy } from './policy-book.ts';
import { patienceFields } from './route-actions.ts';
import { draftRoutes, type RouteFields } from './route-configurations.ts';
import { MATCH_ALL } from './route-match.ts';
import { originOf, type ServiceBook } from './service-book.ts';
import { type MadeChains, tcpChains, tlsChains } from './stream-chains.ts';
import type { Target } from './target.ts';

/** What is the same for all ports of a service at a waypoint. */
export interface FrontendSetting {
  readonly book: ServiceBook;
  readonly policy: ListenerPolicy;
  readonly faults: FaultTable;
}

/**
 * The resources of a port of a service: its listener, routes, and all clusters that they lead to. `attached` are the routes of the
 * port for callers of one namespace or for all others; without any, everything goes to the service itself.
 */
export function draftFrontend(
  setting: FrontendSetting,
  target: Target,
  attached?: AttachedFrontend,
): readonly Draft[] {
  const { info, port } = target;
  const kind = kindOf(port.appProtocol, attached?.kind);
  const name = listenerName(info.service, port.servicePort, kind, attached?.consumerNamespace);
  const origin = originOf(info);
  const routes = hasRoutes(kind) ? makeRoutes(setting, target, attached) : [];
  const { chains, targets } = makeChains(setting.book, name, kind, target, attached);
  const reached = [...targets, ...routes.flatMap((route) => route.targets)];
  const metadata: ListenerMetadata = {
    ...metadataOf(info, port.servicePort),
    ...(attached?.consumerNamespace !== undefined && { consumer_namespace: attached.consumerNamespace }),
    ...setting.policy,
  };
  return [
    draftListener({ name, kind, metadata, chains, origin }),
    ...(hasRoutes(kind)
      ? [
          draftRoutes(
            name,
            routes.map(({ route }) => route),
            origin,
          ),
        ]
      : []),
    ...reached.flatMap((each) => setting.book.clusterOf(each)),
  ];
}

/**
 * What a listener takes for granted: what the routes of the port say, which is that requests come where a port of TCP is named for
 * HTTP; else what the port declares.
 */
function kindOf(protocol: AppProtocol, routes: AttachedFrontend['kind'] | undefined): ListenerKind {
  if (routes === 'tcp' || routes === 'tls') return routes;
  if (routes !== undefined && protocol !== 'UNKNOWN') return 'http';
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

function hasRoutes(kind: ListenerKind): boolean {
  return kind === 'http' || kind === 'auto';
}

/** Where the service stands in the mesh: its VIPs, and its name. */
function metadataOf({ key, service }: ServiceInfo, port: number): ListenerMetadata {
  const vips = service.addresses.filter(({ length }) => length === undefined).map(({ ip }) => ip);
  return { service: key, addresses: [...vips, service.hostname], port };
}

function makeRoutes(
  { book, faults }: FrontendSetting,
  target: Target,
  attached: AttachedFrontend | undefined,
): readonly MadeRoute[] {
  const { info, port } = target;
  const setting: RouteSetting = {
    book,
    port: port.servicePort,
    faultsOf: (entry) => faults.of(info, entry),
  };
  switch (attached?.kind) {
    case 'http':
      return httpRoutes(setting, attached.entries);
    case 'grpc':
      return grpcRoutes(setting, attached.entries);
    default:
      return [{ route: ownRoute(book, target, faults.of(info)), targets: [target] }];
  }
}

function makeChains(
  book: ServiceBook,
  name: string,
  kind: ListenerKind,
  target: Target,
  attached: AttachedFrontend | undefined,
): MadeChains {
  if (kind === 'http') return { chains: [], targets: [] };
  if (attached?.kind === 'tcp') return tcpChains(book, name, attached.entries);
  if (attached?.kind === 'tls') return tlsChains(book, name, attached.entries);
  const own: TcpChain = {
    name: `${name}|tcp`,
    serverNames: [],
    clusters: [{ name: clusterName(target.info.service, target.port.servicePort), weight: 1 }],
    metadata: {},
  };
  return { chains: [own], targets: [target] };
}

/** Everything to the service itself. */
function ownRoute(book: ServiceBook, { info, port }: Target, faults: RouteFaults): RouteFields {
  return forwardAll(clusterName(info.service, port.servicePort), book.balancingOf(info).hashPolicy, faults);
}

/** The one route of what has none: everything to a cluster. */
export function forwardAll(
  cluster: string,
  hashPolicy: ReturnType<ServiceBook['balancingOf']>['hashPolicy'],
  faults: RouteFaults,
): RouteFields {
  return {
    name: 'default',
    match: MATCH_ALL,
    action: {
      case: 'route',
      value: {
        clusterSpecifier: { case: 'cluster', value: cluster },
        ...patienceFields({ requestMs: 0, tryMs: 0 }),
        hashPolicy: [...hashPolicy],
      },
    },
    metadata: ownMetadata(faults.metadata.length > 0 ? { faults: faults.metadata } : {}),
    typedPerFilterConfig: { ...faults.settings },
  };
}
