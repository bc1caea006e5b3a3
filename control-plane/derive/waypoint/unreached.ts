import { objectKey } from '../../source/objects.ts';
import type { Context } from '../context.ts';
import type { ServiceInfo } from '../services.ts';
import { bindService } from '../waypoint-binding.ts';
import { isOwnGateway } from './gateway-services.ts';

/** What a policy for waypoints is aimed at. */
export interface Aim {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

/** Why no waypoint came upon what a policy is aimed at. */
export interface Unreached {
  readonly reason: string;
  /** Whether traffic passes there all the same, without the policy. */
  readonly isOpen: boolean;
}

/** The services of an object: `Service pay/ledger`, or a ServiceEntry with several hosts. */
export type ServicesOf = (object: string) => readonly ServiceInfo[];

/** Indexes services by the object that they come from. */
export function indexByObject(services: ReadonlyMap<string, ServiceInfo>): ServicesOf {
  const byObject = Map.groupBy(services.values(), ({ object }) => objectKey(object));
  return (object) => byObject.get(object) ?? [];
}

/** Says why a policy that no waypoint came upon has no effect there. */
export function whyUnreached(context: Context, servicesOf: ServicesOf, aim: Aim): Unreached {
  const key = `${aim.kind} ${aim.namespace}/${aim.name}`;
  switch (aim.kind) {
    case 'Gateway':
      return unreachedGateway(context, aim, key);
    case 'GatewayClass':
      return unreachedClass(context, aim);
    case 'HTTPRoute':
    case 'GRPCRoute':
      return { reason: `${key} is attached to no service that has a waypoint`, isOpen: true };
    default:
      return unreachedService(context, servicesOf(key)[0], key);
  }
}

function unreachedService(context: Context, info: ServiceInfo | undefined, key: string): Unreached {
  if (info === undefined) return { reason: `there is no ${key} with endpoints of its own`, isOpen: true };
  const binding = bindService(context.waypoints, info.object.metadata);
  switch (binding.kind) {
    case 'none': {
      const remedy = 'label it, or its namespace, with istio.io/use-waypoint';
      return { reason: `${key} has no waypoint; ${remedy}`, isOpen: true };
    }
    case 'refused':
      return { reason: `${key} has no waypoint: ${binding.reason}`, isOpen: true };
    case 'missing':
      return { reason: `there is no waypoint ${binding.key}, to which ${key} is bound`, isOpen: false };
    case 'bound':
      return {
        reason: `the waypoint ${binding.key} of ${key} ${isOwn(context, binding.key) ? NO_REQUESTS : FOREIGN}`,
        isOpen: true,
      };
  }
}

const NO_REQUESTS = 'takes what comes for it as TCP or TLS, not as requests';
const FOREIGN = 'is of a class that others serve';

function isOwn({ waypoints }: Context, key: string): boolean {
  const gateway = waypoints.byKey.get(key)?.gateway;
  return gateway !== undefined && isOwnGateway(gateway);
}

function unreachedGateway(context: Context, { namespace, name }: Aim, key: string): Unreached {
  const waypoint = context.waypoints.byKey.get(`${namespace}/${name}`);
  if (waypoint !== undefined)
    return isOwnGateway(waypoint.gateway)
      ? { reason: `nothing is bound to ${key}`, isOpen: false }
      : { reason: `${key} ${FOREIGN}`, isOpen: true };
  const isThere = context.inventory.gateways.some(
    ({ metadata }) => metadata.namespace === namespace && metadata.name === name,
  );
  return { reason: isThere ? `${key} is no waypoint` : `there is no ${key}`, isOpen: true };
}

function unreachedClass({ settings }: Context, { namespace, name }: Aim): Unreached {
  const { rootNamespace } = settings;
  if (namespace !== rootNamespace)
    return {
      reason: `a policy for a GatewayClass has to be in the namespace ${rootNamespace}`,
      isOpen: true,
    };
  return { reason: `nothing is bound to a waypoint of the class ${name}`, isOpen: false };
}
