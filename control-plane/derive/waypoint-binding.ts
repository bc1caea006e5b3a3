import type { WeightedWaypoint } from '#api/service.ts';
import type { GatewayAddress } from '#api/workload.ts';
import type { ObjectMeta, StringMap } from '../source/objects.ts';
import {
  allowsNamespace,
  assumedAddress,
  instanceOf,
  isGatewayPart,
  type WaypointTable,
} from './waypoints.ts';

const USE = 'istio.io/use-waypoint';
const CANARY = 'istio.io/use-waypoint-canary';
const CANARY_WEIGHT = 'istio.io/use-waypoint-canary-weight';
const INGRESS = 'istio.io/ingress-use-waypoint';

/** What may be bound: a Service, ServiceEntry or workload, by its labels and those of its namespace. */
export type Bindable = Pick<ObjectMeta, 'namespace' | 'labels' | 'annotations'>;

/** Where the label stands that decides: on the object, or on its namespace. */
type Level = 'object' | 'namespace';

/**
 * Which waypoint stands before an object. `missing`: it is named, and nothing describes it; its address is assumed, so
 * that connections are refused and do not go round it. `refused`: the waypoint does not take the object.
 */
export type Binding =
  | { readonly kind: 'none' }
  | {
      readonly kind: 'bound' | 'missing';
      readonly key: string;
      readonly level: Level;
      readonly address: GatewayAddress;
    }
  | {
      readonly kind: 'refused';
      readonly key: string;
      readonly level: Level;
      readonly cause: 'namespace' | 'traffic';
      readonly reason: string;
    };

const NONE: Binding = { kind: 'none' };

/** Path of the label that binds, for messages. */
export const USE_WAYPOINT_PATH: string = `metadata.labels["${USE}"]`;

/** The waypoint before a Service or ServiceEntry. A gateway's own Service has none. */
export function bindService(table: WaypointTable, object: Bindable): Binding {
  return isGatewayPart(object) ? NONE : resolve(table, object, 'service');
}

/**
 * The waypoint before a workload. An instance of a waypoint has none; a namespace's waypoint stands before workloads
 * only if it says that it is for them.
 */
export function bindWorkload(table: WaypointTable, object: Bindable): Binding {
  if (instanceOf(table, object) !== undefined) return NONE;
  const binding = resolve(table, object, 'workload');
  const isForServices =
    binding.kind === 'missing' || (binding.kind === 'refused' && binding.cause === 'traffic');
  return isForServices && binding.level === 'namespace' ? NONE : binding;
}

/** The address to send for a binding. */
export function bindingAddress(binding: Binding): GatewayAddress | undefined {
  return binding.kind === 'bound' || binding.kind === 'missing' ? binding.address : undefined;
}

/** Whether traffic from ingress gateways goes through the waypoint, too. */
export function usesWaypointForIngress(table: WaypointTable, object: Bindable): boolean {
  const written = object.labels.get(INGRESS) ?? labelsOfNamespace(table, object).get(INGRESS) ?? '';
  return parseBoolean(written) ?? false;
}

/** The waypoint and its canary with their shares of the connections; empty where there is no canary. */
export function weighWaypoints(
  table: WaypointTable,
  object: Bindable,
  primary: Binding,
): { readonly weighted: readonly WeightedWaypoint[]; readonly fault?: string } {
  const declared = primary.kind === 'bound' ? readCanary(table, object) : undefined;
  if (primary.kind !== 'bound' || declared === undefined) return { weighted: [] };
  const { key, weight } = declared;
  if (key === primary.key) return { weighted: [], fault: `waypoint ${key} is its own canary` };
  if (weight === undefined)
    return { weighted: [], fault: `annotation ${CANARY_WEIGHT} has to be a whole number from 0 to 100` };
  const canary = lookUp(table, key, primary.level, object.namespace, 'service');
  if (canary.kind === 'refused') return { weighted: [], fault: canary.reason };
  if (canary.kind !== 'bound') return { weighted: [], fault: `there is no canary waypoint ${key}` };
  return {
    weighted: [
      { destination: primary.address, weight: 100 - weight },
      { destination: canary.address, weight },
    ],
  };
}

/** A truth value as annotations write it; undefined for other text. */
export function parseBoolean(text: string): boolean | undefined {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(text)) return true;
  if (['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(text)) return false;
  return undefined;
}

type Traffic = 'service' | 'workload';

function resolve(table: WaypointTable, object: Bindable, traffic: Traffic): Binding {
  const level: Level = object.labels.has(USE) ? 'object' : 'namespace';
  const labels = level === 'object' ? object.labels : labelsOfNamespace(table, object);
  const name = labels.get(USE);
  if (name === undefined || name === 'none') return NONE;
  const key = `${labels.get(`${USE}-namespace`) ?? object.namespace}/${name}`;
  return lookUp(table, key, level, object.namespace, traffic);
}

function lookUp(
  table: WaypointTable,
  key: string,
  level: Level,
  namespace: string,
  traffic: Traffic,
): Binding {
  const waypoint = table.byKey.get(key);
  if (waypoint === undefined)
    return { kind: 'missing', key, level, address: assumedAddress(table.domain, key) };
  if (!allowsNamespace(table, waypoint, namespace)) {
    const reason = `waypoint ${key} does not allow namespace ${namespace} (allowedRoutes of its listener)`;
    return { kind: 'refused', key, level, cause: 'namespace', reason };
  }
  if (waypoint.trafficType === traffic || waypoint.trafficType === 'all')
    return { kind: 'bound', key, level, address: waypoint.address };
  const reason = `waypoint ${key} is for ${waypoint.trafficType} traffic (label istio.io/waypoint-for), not for ${traffic} traffic`;
  return { kind: 'refused', key, level, cause: 'traffic', reason };
}

/** The canary is read from where the waypoint is; an object's own canary label is read in any case. */
function readCanary(
  table: WaypointTable,
  object: Bindable,
): { readonly key: string; readonly weight: number | undefined } | undefined {
  const inherits = !object.labels.has(USE);
  const namespace = inherits ? table.inventory.namespaces.get(object.namespace)?.metadata : undefined;
  const holder = object.labels.has(CANARY) ? object : namespace;
  const name = holder?.labels.get(CANARY);
  if (!name || name === 'none') return undefined;
  const weight = object.annotations.get(CANARY_WEIGHT) ?? namespace?.annotations.get(CANARY_WEIGHT) ?? '0';
  return {
    key: `${holder?.labels.get(`${CANARY}-namespace`) ?? object.namespace}/${name}`,
    weight: /^\d{1,3}$/.test(weight) && Number(weight) <= 100 ? Number(weight) : undefined,
  };
}

function labelsOfNamespace(table: WaypointTable, object: Bindable): StringMap {
  return table.inventory.namespaces.get(object.namespace)?.metadata.labels ?? new Map();
}
