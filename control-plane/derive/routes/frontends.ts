import { type ObjectKey, objectKey, type RouteObject } from '../../source/objects.ts';
import { compareText } from '../inventory.ts';
import type { ServiceInfo } from '../services.ts';
import type { AttachedFrontend } from './attached.ts';
import type { ServicePortRef } from './parents.ts';
import { sortGrpcEntries, sortHttpEntries, sortTlsEntries } from './precedence.ts';
import { grpcEntries, httpEntries, type ResolvedRoute, tcpEntries, tlsEntries } from './resolved-route.ts';

/** A route that is to hold for a port. */
export interface Claim extends ServicePortRef {
  readonly resolved: ResolvedRoute;
}

/** Routes that have no effect at a port, as another one holds there. */
export interface LostClaims {
  /** The route that holds instead; undefined: this one does. */
  readonly winnerOver: (route: RouteObject, port: ServicePortRef) => ObjectKey | undefined;
  /**
   * The older route of the same kind that leaves nothing of it to this one: there is one TCPRoute for a port, and one TLSRoute
   * for a name.
   */
  readonly shadowOver: (route: RouteObject, port: ServicePortRef) => ObjectKey | undefined;
}

/** A kind that is more specific about the traffic takes the port from the others. */
const KINDS: readonly RouteObject['kind'][] = ['GRPCRoute', 'HTTPRoute', 'TLSRoute', 'TCPRoute'];

/** Gives each port to the routes of one kind. Claims come in the order of the age of their routes. */
export function buildFrontends(claims: readonly Claim[]): {
  readonly frontends: readonly AttachedFrontend[];
  readonly lost: LostClaims;
} {
  const winners = new Map<string, ObjectKey>();
  const shadows = new Map<string, ObjectKey>();
  const frontends: AttachedFrontend[] = [];
  for (const group of Map.groupBy(claims, frontendKey).values()) {
    const [first] = group;
    if (first === undefined) continue;
    const byKind = Map.groupBy(group, ({ resolved }) => resolved.route.kind);
    const kind = KINDS.find((one) => byKind.has(one));
    const holders = kind === undefined ? [] : (byKind.get(kind) ?? []).map(({ resolved }) => resolved);
    const frontend = buildFrontend(first, holders);
    frontends.push(frontend);
    const [oldest] = holders;
    if (oldest === undefined) continue;
    for (const { route } of shadowed(frontend, holders))
      shadows.set(claimKey(route, first), objectKey(oldest.route));
    for (const claim of group)
      if (claim.resolved.route.kind !== kind)
        winners.set(claimKey(claim.resolved.route, claim), objectKey(oldest.route));
  }
  return {
    frontends: frontends.sort(compareFrontends),
    lost: {
      winnerOver: (route, port) => findClaim(winners, route, port),
      shadowOver: (route, port) => findClaim(shadows, route, port),
    },
  };
}

/** Mostly there is nothing to find. */
function findClaim(
  claims: ReadonlyMap<string, ObjectKey>,
  route: RouteObject,
  port: ServicePortRef,
): ObjectKey | undefined {
  return claims.size === 0 ? undefined : claims.get(claimKey(route, port));
}

function shadowed(frontend: AttachedFrontend, holders: readonly ResolvedRoute[]): readonly ResolvedRoute[] {
  if (frontend.kind === 'http' || frontend.kind === 'grpc') return [];
  const present = new Set(frontend.entries.map(({ object }) => object));
  return holders.filter(({ route }) => !present.has(objectKey(route)));
}

/** The namespace whose callers a route is for; undefined: it is the service's own, and so for all. */
export function consumerNamespace(route: RouteObject, { service }: ServiceInfo): string | undefined {
  const { namespace } = route.metadata;
  return namespace === service.namespace ? undefined : namespace;
}

function frontendKey({ resolved, service, port }: Claim): string {
  return `${service.key} ${port} ${consumerNamespace(resolved.route, service) ?? ''}`;
}

function claimKey(route: RouteObject, { service, port }: ServicePortRef): string {
  return `${objectKey(route)} ${service.key} ${port}`;
}

function buildFrontend(
  { service, port, resolved }: Claim,
  holders: readonly ResolvedRoute[],
): AttachedFrontend {
  const namespace = consumerNamespace(resolved.route, service);
  const place = {
    service: service.key,
    port,
    ...(namespace !== undefined && { consumerNamespace: namespace }),
  };
  const [oldest = resolved] = holders;
  switch (oldest.route.kind) {
    case 'GRPCRoute':
      return {
        ...place,
        kind: 'grpc',
        entries: sortGrpcEntries(holders.flatMap((one) => (isGrpc(one) ? grpcEntries(one) : []))),
      };
    case 'HTTPRoute':
      return {
        ...place,
        kind: 'http',
        entries: sortHttpEntries(holders.flatMap((one) => (isHttp(one) ? httpEntries(one) : []))),
      };
    case 'TLSRoute':
      return {
        ...place,
        kind: 'tls',
        entries: sortTlsEntries(holders.flatMap((one) => (isTls(one) ? tlsEntries(one) : []))),
      };
    case 'TCPRoute':
      return {
        ...place,
        kind: 'tcp',
        entries: holders.flatMap((one) => (isTcp(one) ? tcpEntries(one) : [])).slice(0, 1),
      };
  }
}

type OfKind<Kind extends RouteObject['kind']> = ResolvedRoute<Extract<RouteObject, { readonly kind: Kind }>>;

function isGrpc(resolved: ResolvedRoute): resolved is OfKind<'GRPCRoute'> {
  return resolved.route.kind === 'GRPCRoute';
}

function isHttp(resolved: ResolvedRoute): resolved is OfKind<'HTTPRoute'> {
  return resolved.route.kind === 'HTTPRoute';
}

function isTls(resolved: ResolvedRoute): resolved is OfKind<'TLSRoute'> {
  return resolved.route.kind === 'TLSRoute';
}

function isTcp(resolved: ResolvedRoute): resolved is OfKind<'TCPRoute'> {
  return resolved.route.kind === 'TCPRoute';
}

function compareFrontends(a: AttachedFrontend, b: AttachedFrontend): number {
  return (
    compareText(a.service, b.service) ||
    a.port - b.port ||
    compareText(a.consumerNamespace ?? '', b.consumerNamespace ?? '')
  );
}
