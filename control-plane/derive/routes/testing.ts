import { objectsOf } from '#test/kit/objects.ts';
import type { Context } from '../context.ts';
import { takeInventory } from '../inventory.ts';
import { settleConflicts } from '../service-conflicts.ts';
import { deriveServiceEntries } from '../service-entries.ts';
import { deriveServices, type ServiceInfo } from '../services.ts';
import { DEFAULT_SETTINGS } from '../settings.ts';
import { allocateVips, NO_VIPS } from '../vips.ts';
import { collectWaypoints } from '../waypoints.ts';
import { attachRoutes } from './attach-routes.ts';
import type { AttachedFrontend, AttachedRoutes, RouteCondition } from './attached.ts';

/** What becomes of the routes of a text; services are taken to have a waypoint, but those named here (`pay/ledger`). */
export function attachText(text: string, withoutWaypoint: readonly string[] = []): AttachedRoutes {
  const objects = objectsOf(text);
  const wrong = objects.problems.filter(({ severity }) => severity === 'error');
  if (wrong.length > 0) throw new Error(wrong.map(({ path, message }) => `${path}: ${message}`).join('\n'));
  const inventory = takeInventory(objects.objects.values());
  const domain = 'cluster.local';
  const context: Context = {
    inventory,
    settings: DEFAULT_SETTINGS,
    waypoints: collectWaypoints(inventory, domain, ''),
    vips: allocateVips(objects, NO_VIPS),
    clusterId: 'Kubernetes',
    domain,
    network: '',
    report: () => undefined,
  };
  const services = settleConflicts(context, [...deriveServices(context), ...deriveServiceEntries(context)]);
  const hasWaypoint = ({ service }: ServiceInfo): boolean =>
    !withoutWaypoint.includes(`${service.namespace}/${service.name}`);
  return attachRoutes({ inventory, services, hasWaypoint });
}

/** `80`, `80 from web`: the ports that have routes, and for whom. */
export function placesOf({ frontends }: AttachedRoutes): readonly string[] {
  return frontends.map(
    ({ service, port, kind, consumerNamespace: from }) =>
      `${kind} ${service.replace('.svc.cluster.local', '')}:${port}${from === undefined ? '' : ` from ${from}`}`,
  );
}

/** The only frontend of a kind; the test fails when there is none, or are more. */
export function frontendOf<Kind extends AttachedFrontend['kind']>(
  { frontends }: AttachedRoutes,
  kind: Kind,
): Extract<AttachedFrontend, { readonly kind: Kind }> {
  const [first, ...others] = frontends.filter(
    (one): one is Extract<AttachedFrontend, { readonly kind: Kind }> => one.kind === kind,
  );
  if (first === undefined || others.length > 0) throw new Error(`${frontends.length} frontends`);
  return first;
}

/** The condition of a type at a parent of a route, `STATUS REASON`; undefined where there is none. */
export function conditionOf(
  { statuses }: AttachedRoutes,
  object: string,
  type: RouteCondition['type'],
  parent = 0,
): string | undefined {
  const conditions = statuses.find((one) => one.object === object)?.parents[parent]?.conditions;
  const condition = conditions?.find((one) => one.type === type);
  return condition && `${condition.status} ${condition.reason}`;
}
