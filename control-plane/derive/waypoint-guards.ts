import { type Authorization, EMPTY_MATCH, policyKey, REQUIRE_WAYPOINT_PREFIX } from '#api/policy.ts';
import { type Service, serviceKey } from '#api/service.ts';
import type { GatewayAddress, Workload } from '#api/workload.ts';
import { principalOf } from '#certs/identity.ts';
import type { ObjectKey, Position } from '../source/objects.ts';
import { denySelected } from './authorizations.ts';
import type { Derived } from './context.ts';
import { digest } from './digest.ts';
import { compareText } from './inventory.ts';
import { getOrAdd } from './selectors.ts';
import type { ServiceInfo } from './services.ts';

/** What makes a waypoint required. */
export interface Requirement {
  readonly object: ObjectKey;
  readonly position: Position;
}

/** One thing behind a waypoint that a workload is: who may connect, to which of the workload's ports. */
export interface Guard {
  readonly cause: Requirement;
  readonly principals: readonly string[];
  /** Undefined: all. */
  readonly ports: readonly number[] | undefined;
}

/** The identities (`cluster.local/ns/shop/sa/wp`) under which a waypoint may come; never none. */
export type PrincipalsOf = (waypoint: GatewayAddress, trustDomain: string) => readonly string[];

/** Where nothing is known of a waypoint: no list at all would let a stock ztunnel open the door to everybody. */
const NOBODY: readonly string[] = ['nobody'];

/** A waypoint comes under the identities of its instances, and under the one that its name gives it while there is none. */
export function indexPrincipals(
  services: ReadonlyMap<string, ServiceInfo>,
  workloads: readonly Derived<Workload>[],
): PrincipalsOf {
  const byService = new Map<string, Set<string>>();
  const byAddress = new Map<string, ReadonlySet<string>>();
  for (const { resource } of workloads) {
    const principal = principalOf(resource);
    for (const key of resource.services.keys()) getOrAdd(byService, key, () => new Set()).add(principal);
    for (const ip of resource.addresses) byAddress.set(`${resource.network}/${ip}`, new Set([principal]));
  }
  // As for ztunnels, an address is first of all that of a service.
  for (const { key, service } of services.values())
    for (const { network, ip } of service.addresses)
      byAddress.set(`${network}/${ip}`, byService.get(key) ?? new Set());
  return ({ destination }, trustDomain) => {
    if (destination.kind === 'address') {
      const found = [...(byAddress.get(`${destination.network}/${destination.ip}`) ?? [])];
      return found.length > 0 ? found : NOBODY;
    }
    const [serviceAccount = ''] = destination.hostname.split('.');
    const assumed = principalOf({ trustDomain, namespace: destination.namespace, serviceAccount });
    return [...(byService.get(serviceKey(destination)) ?? []), assumed];
  };
}

/** What guards are made of. */
export interface GuardBook {
  readonly services: ReadonlyMap<string, ServiceInfo>;
  /** Services that may be reached through their waypoint only, and why. */
  readonly required: ReadonlyMap<string, Requirement>;
  readonly principalsOf: PrincipalsOf;
}

/**
 * All ports of a workload that is required to be reached through a waypoint of its own: open to that, and to those of the services
 * that it is behind.
 */
export function ownGuard(
  workload: Workload,
  cause: Requirement | undefined,
  { services, principalsOf }: GuardBook,
): readonly Guard[] {
  if (cause === undefined || workload.waypoint === undefined) return [];
  const ofServices = [...workload.services.keys()].flatMap((key) => {
    const service = services.get(key)?.service;
    return service?.namespace === workload.namespace ? waypointsOf(service) : [];
  });
  const addresses = [workload.waypoint, ...ofServices];
  const principals = addresses.flatMap((address) => principalsOf(address, workload.trustDomain));
  return [{ cause, principals, ports: undefined }];
}

/**
 * What a workload is guarded by for its services. A port that several of them share is open to the waypoints of each; one that a
 * service without a requirement has, too, is guarded all the same. A service of another namespace that lists the workload has no say.
 */
export function serviceGuards(
  workload: Workload,
  { services, required, principalsOf }: GuardBook,
): readonly Guard[] {
  return [...workload.services.keys()].sort(compareText).flatMap((key): Guard[] => {
    const cause = required.get(key);
    const service = services.get(key)?.service;
    if (cause === undefined || service?.namespace !== workload.namespace) return [];
    const principals = waypointsOf(service).flatMap((address) => principalsOf(address, workload.trustDomain));
    return [{ cause, principals, ports: targetPorts(workload, service) }];
  });
}

function waypointsOf(service: Service): readonly GatewayAddress[] {
  const canaries = service.weightedWaypoints.map(({ destination }) => destination);
  return service.waypoint === undefined ? canaries : [service.waypoint, ...canaries];
}

function targetPorts(workload: Workload, service: Service): readonly number[] | undefined {
  const own = workload.services.get(serviceKey(service)) ?? [];
  const ports = service.ports.map(
    ({ servicePort, targetPort }) =>
      own.find((mapping) => mapping.servicePort === servicePort)?.targetPort ?? targetPort,
  );
  // A port that nobody knows the number of: all are guarded.
  return ports.includes(0) ? undefined : [...new Set(ports)].sort((a, b) => a - b);
}

/** One guard for each set of principals; of ports that have several, the principals of all. */
export function mergeGuards(guards: readonly Guard[]): readonly Guard[] {
  const [first, ...others] = guards;
  if (first === undefined) return [];
  if (others.length === 0) return [{ ...first, principals: union(guards) }];
  if (guards.some(({ ports }) => ports === undefined))
    return [{ cause: first.cause, principals: union(guards), ports: undefined }];
  const ports = [...new Set(guards.flatMap((guard) => guard.ports ?? []))].sort((a, b) => a - b);
  const byPrincipals = Map.groupBy(ports, (port) =>
    union(guards.filter((guard) => guard.ports?.includes(port))).join(' '),
  );
  return [...byPrincipals].map(([principals, group]) => ({
    cause: first.cause,
    principals: principals.split(' '),
    ports: group,
  }));
}

function union(guards: readonly Guard[]): readonly string[] {
  return sorted(guards.flatMap(({ principals }) => principals));
}

function sorted(texts: readonly string[]): readonly string[] {
  return [...new Set(texts)].sort(compareText);
}

/** The policies that guards become: workloads that are guarded in the same way share one. */
export class GuardPolicies {
  readonly #trustDomain: string;
  readonly #byName = new Map<string, Derived<Authorization>>();

  /** @param trustDomain of the mesh */
  constructor(trustDomain: string) {
    this.#trustDomain = trustDomain;
  }

  /** `namespace/name` of the policy with these guards. */
  nameOf(namespace: string, guards: readonly Guard[]): string {
    const name = nameGuards(guards, this.#trustDomain);
    const key = policyKey({ namespace, name });
    if (!this.#byName.has(key)) this.#byName.set(key, toAuthorization(namespace, name, guards));
    return key;
  }

  authorizations(): readonly Derived<Authorization>[] {
    return [...this.#byName.values()];
  }
}

const LONGEST_NAME = 128;

/**
 * After the waypoints, `tulle_require_waypoint_shop_waypoint`, and the ports if it is not all of them, `…_8080_9090`; what is longer
 * or says more has a digest instead. It depends on nothing else, so that a name never comes to mean something else.
 */
function nameGuards(guards: readonly Guard[], trustDomain: string): string {
  const [first, ...others] = guards;
  const accounts = union(guards).map((principal) => {
    const [, domain, namespace = '', account] = /^([^/]+)\/ns\/([^/]+)\/sa\/(.+)$/.exec(principal) ?? [];
    // A number would look like a port.
    return domain === trustDomain && /\D/.test(namespace) ? `${namespace}_${account}` : undefined;
  });
  const known = accounts.filter((account) => account !== undefined);
  const name = `${REQUIRE_WAYPOINT_PREFIX}${[...known, ...(first?.ports ?? [])].join('_')}`;
  const isPlain = others.length === 0 && known.length === accounts.length;
  if (isPlain && name.length <= LONGEST_NAME) return name;
  const content = JSON.stringify(guards.map(({ principals, ports }) => [principals, ports]));
  return `${REQUIRE_WAYPOINT_PREFIX}${digest(content)}`;
}

function toAuthorization(namespace: string, name: string, guards: readonly Guard[]): Derived<Authorization> {
  const [first] = guards;
  const rules = guards.map(({ principals, ports }) => {
    const notPrincipals = principals.map((value) => ({ kind: 'exact' as const, value }));
    const who = { matches: [{ ...EMPTY_MATCH, notPrincipals }] };
    const where = { matches: [{ ...EMPTY_MATCH, destinationPorts: ports ?? [] }] };
    return { clauses: ports === undefined ? [who] : [who, where] };
  });
  const resource = denySelected(name, namespace, rules);
  const origin = first?.cause ?? { object: '', position: { file: '', line: 0, column: 0 } };
  return {
    resource,
    origin: { object: origin.object, position: origin.position },
    ruleOrigins: guards.map(({ cause }) => cause.position),
  };
}
