import { objectKey, type Problem, type RouteObject } from '../../source/objects.ts';
import type { Inventory } from '../inventory.ts';
import type { ServiceInfo } from '../services.ts';
import type { AttachedRoutes } from './attached.ts';
import { indexBackends } from './backends.ts';
import { type Attachment, attachmentProblems, routeStatus } from './conditions.ts';
import { buildFrontends, type Claim } from './frontends.ts';
import { indexParents } from './parents.ts';
import { compareRoutes } from './precedence.ts';
import { resolveRoute } from './resolved-route.ts';

/** What routes are attached with. */
export interface AttachInput {
  readonly inventory: Pick<
    Inventory,
    'httpRoutes' | 'grpcRoutes' | 'tcpRoutes' | 'tlsRoutes' | 'referenceGrants' | 'services'
  >;
  /** By `namespace/hostname`. */
  readonly services: ReadonlyMap<string, ServiceInfo>;
  /** Whether a waypoint stands before the service: without one its routes do nothing, which is reported. */
  readonly hasWaypoint: (service: ServiceInfo) => boolean;
}

/**
 * Attaches the Gateway API's routes to the ports of services. A route in the namespace of its parent is for all callers
 * (producer), one in another namespace for callers of that one (consumer); the two are not mixed. Order of the objects does not
 * matter.
 */
export function attachRoutes({ inventory, services, hasWaypoint }: AttachInput): AttachedRoutes {
  const externalNames = new Map(
    inventory.services
      .filter(({ spec }) => spec.type === 'ExternalName')
      .map((object): [string, string] => [objectKey(object), 'is of type ExternalName']),
  );
  const headless = inventory.services
    .filter(({ spec }) => spec.clusterIP === 'None' || spec.clusterIPs.includes('None'))
    .map((object): [string, string] => [objectKey(object), 'is headless']);
  const parents = indexParents(services.values(), new Map([...headless, ...externalNames]));
  const backends = indexBackends({ services, grants: inventory.referenceGrants, unfit: externalNames });
  const attachments = routesOf(inventory).map((route): Attachment => {
    const results = route.spec.parentRefs.map((ref) => ({
      result: parents.resolve(route, ref),
      resolved: resolveRoute(route, ref, backends),
    }));
    return { route, parents: results };
  });
  const { frontends, lost } = buildFrontends(attachments.flatMap(claimsOf));
  const problems = attachments.flatMap((one): readonly Problem[] =>
    attachmentProblems(one, lost, hasWaypoint),
  );
  return { frontends, statuses: attachments.flatMap((one) => routeStatus(one, lost)), problems };
}

function routesOf(inventory: AttachInput['inventory']): readonly RouteObject[] {
  const { httpRoutes, grpcRoutes, tcpRoutes, tlsRoutes } = inventory;
  return [...httpRoutes, ...grpcRoutes, ...tcpRoutes, ...tlsRoutes].sort(compareRoutes);
}

/** The ports that a route is to hold for, each once. */
function claimsOf({ parents }: Attachment): readonly Claim[] {
  const claims = new Map<string, Claim>();
  for (const { result, resolved } of parents)
    if (result.kind === 'ports')
      for (const { service, port } of result.ports)
        claims.set(`${service.key} ${port}`, { resolved, service, port });
  return [...claims.values()];
}
