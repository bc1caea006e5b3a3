import { familyOf, type Ip } from '#api/address.ts';
import type { LoadBalancingScope, Service } from '#api/service.ts';
import type { Workload } from '#api/workload.ts';
import type { Endpoint, Tables } from './tables.ts';

/** Whose endpoints, at which port, for whom. */
export interface BalanceRequest {
  readonly tables: Tables;
  readonly service: Service;
  /** Port of the service. */
  readonly port: number;
  readonly source: Workload;
  /** A waypoint behind a ztunnel need not have the port on its service. */
  readonly purpose: 'application' | 'waypoint';
  /** Workloads (by uid) that were tried in vain for this connection; mostly none. */
  readonly exclude?: ReadonlySet<string> | undefined;
}

/** Why an endpoint is not among those that the dice are thrown for. */
export type Exclusion =
  | 'tried-in-vain'
  | 'no-address'
  | 'port-not-mapped'
  | 'other-network'
  | 'other-network-without-gateway'
  | 'no-capacity'
  | 'preference-not-met'
  | 'less-preferred';

/** An endpoint, and what came of it. All that are not excluded share the connections by their weight. */
export interface Candidate {
  readonly endpoint: Endpoint;
  /** Port of the workload; 0 when there is none. */
  readonly targetPort: number;
  /** How well it meets the service's preferences; the highest wins. */
  readonly rank: number;
  readonly weight: number;
  readonly excluded?: Exclusion;
}

/** What a throw of the dice gives. */
export type Choice =
  | { readonly kind: 'chosen'; readonly workload: Workload; readonly targetPort: number }
  | { readonly kind: 'none'; readonly reason: NoChoice };

/** Why there is no endpoint to choose. */
export type NoChoice =
  | 'service-port-unknown'
  | 'no-healthy-endpoint'
  | 'other-network'
  | 'other-network-without-gateway';

/**
 * Chooses one endpoint: of those with the highest rank, at random by weight. Fact sheet ambient-wire.md, 3.2.
 * @param random from 0 to below 1.
 */
export function chooseEndpoint(request: BalanceRequest, random: () => number): Choice {
  if (request.purpose === 'application' && servicePort(request.service, request.port) === undefined) {
    return { kind: 'none', reason: 'service-port-unknown' };
  }
  const { eligible, noChoice } = prepare(request);
  const chosen = pickWeighted(eligible, random);
  if (chosen === undefined) return { kind: 'none', reason: noChoice };
  return { kind: 'chosen', workload: chosen.endpoint.workload, targetPort: chosen.targetPort };
}

/** One of them at random by weight; none if none has any. */
export function pickWeighted<Item extends { readonly weight: number }>(
  items: readonly Item[],
  random: () => number,
): Item | undefined {
  let left = random() * items.reduce((sum, { weight }) => sum + weight, 0);
  for (const item of items) {
    left -= item.weight;
    if (left < 0) return item;
  }
  return undefined;
}

/** Every endpoint that the service has, and why those that cannot be chosen cannot: what `explain` shows. */
export function considerEndpoints(request: BalanceRequest): readonly Candidate[] {
  const endpoints = request.tables.endpointsOf(request.service);
  const candidates = endpoints.map((endpoint) => assess(request, endpoint));
  const best = Math.max(...candidates.map(({ rank, excluded }) => (excluded === undefined ? rank : -1)), -1);
  return candidates.map((candidate) =>
    candidate.excluded === undefined && candidate.rank < best
      ? { ...candidate, excluded: 'less-preferred' }
      : candidate,
  );
}

/**
 * The address of a workload to dial: the one that was asked for if it is the workload's, else one of the same family,
 * else any; only of the families that the service lets a client use.
 */
export function chooseAddress(workload: Workload, service: Service | undefined, asked: Ip): Ip | undefined {
  if (workload.addresses.includes(asked)) return asked;
  const usable = usableAddresses(workload, service);
  return usable.find((ip) => familyOf(ip) === familyOf(asked)) ?? usable[0];
}

function usableAddresses(workload: Workload, service: Service | undefined): readonly Ip[] {
  switch (service?.ipFamilies) {
    case 'IPV4_ONLY':
      return workload.addresses.filter((ip) => familyOf(ip) === 4);
    case 'IPV6_ONLY':
      return workload.addresses.filter((ip) => familyOf(ip) === 6);
    default:
      return workload.addresses;
  }
}

interface Prepared {
  readonly eligible: readonly Candidate[];
  readonly noChoice: NoChoice;
}

/** The tables give the same array until something changes, so what follows from it is remembered with it. */
const PREPARED = new WeakMap<readonly Endpoint[], Map<string, Prepared>>();

function prepare(request: BalanceRequest): Prepared {
  if (request.exclude !== undefined && request.exclude.size > 0) return prepareAnew(request);
  const endpoints = request.tables.endpointsOf(request.service);
  const known = PREPARED.get(endpoints) ?? new Map<string, Prepared>();
  PREPARED.set(endpoints, known);
  const key = `${request.purpose} ${request.port} ${placeOf(request.source)}`;
  const prepared = known.get(key) ?? prepareAnew(request);
  known.set(key, prepared);
  return prepared;
}

function prepareAnew(request: BalanceRequest): Prepared {
  const candidates = considerEndpoints(request);
  const eligible = candidates.filter(({ excluded }) => excluded === undefined);
  const reasons = new Set(candidates.map(({ excluded }) => excluded));
  const remote = (['other-network', 'other-network-without-gateway'] as const).find((each) =>
    reasons.has(each),
  );
  return {
    eligible,
    noChoice: remote ?? 'no-healthy-endpoint',
  };
}

/** All of a source that its rank for an endpoint depends on. */
function placeOf({ network, locality, node, clusterId }: Workload): string {
  return JSON.stringify([network, locality.region, locality.zone, locality.subzone, node, clusterId]);
}

function assess(request: BalanceRequest, endpoint: Endpoint): Candidate {
  const { workload } = endpoint;
  const targetPort = targetPortOf(request, endpoint);
  const { rank, meetsAll } = rankOf(request.service, request.source, workload);
  const candidate = { endpoint, targetPort, rank, weight: workload.capacity };
  const excluded = exclusionOf(request, candidate, meetsAll);
  return excluded === undefined ? candidate : { ...candidate, excluded };
}

function exclusionOf(
  request: BalanceRequest,
  candidate: Candidate,
  meetsAll: boolean,
): Exclusion | undefined {
  const { workload } = candidate.endpoint;
  if (request.exclude?.has(workload.uid) === true) return 'tried-in-vain';
  const remote = workload.network !== request.source.network;
  if (remote) return workload.networkGateway ? 'other-network' : 'other-network-without-gateway';
  if (usableAddresses(workload, request.service).length === 0 && workload.hostname === '')
    return 'no-address';
  if (candidate.targetPort === 0) return 'port-not-mapped';
  if (candidate.weight <= 0) return 'no-capacity';
  if (request.service.loadBalancing?.mode === 'STRICT' && !meetsAll) return 'preference-not-met';
  return undefined;
}

/** The endpoint's own mapping, else the service's; else, to a waypoint behind a ztunnel, the port as it is. */
function targetPortOf(request: BalanceRequest, { ports, workload }: Endpoint): number {
  const own = ports.get(request.port) ?? 0;
  const general = servicePort(request.service, request.port)?.targetPort ?? 0;
  const tunnelled = request.purpose === 'waypoint' && (workload.applicationTunnel?.port ?? 0) > 0;
  return own || general || (tunnelled ? request.port : 0);
}

function servicePort(service: Service, port: number): Service['ports'][number] | undefined {
  return service.ports.find((each) => each.servicePort === port);
}

/**
 * Preferences that are met from the first on, up to the first that is not. NETWORK as the first one outweighs all others
 * together and does not end the count.
 */
function rankOf(
  service: Service,
  source: Workload,
  destination: Workload,
): { readonly rank: number; readonly meetsAll: boolean } {
  const { mode = 'UNSPECIFIED', routingPreference = [] } = service.loadBalancing ?? {};
  if (mode !== 'STRICT' && mode !== 'FAILOVER') return { rank: 0, meetsAll: true };
  const met = routingPreference.map((scope) => placeIn(scope, source) === placeIn(scope, destination));
  const networkFirst = routingPreference[0] === 'NETWORK';
  const others = networkFirst ? met.slice(1) : met;
  const firstMissed = others.indexOf(false);
  const leading = firstMissed < 0 ? others.length : firstMissed;
  const network = networkFirst && met[0] === true ? routingPreference.length : 0;
  return { rank: network + leading, meetsAll: met.every((each) => each) };
}

function placeIn(scope: LoadBalancingScope, workload: Workload): string {
  switch (scope) {
    case 'REGION':
      return workload.locality.region;
    case 'ZONE':
      return workload.locality.zone;
    case 'SUBZONE':
      return workload.locality.subzone;
    case 'NODE':
      return workload.node;
    case 'CLUSTER':
      return workload.clusterId;
    case 'NETWORK':
      return workload.network;
  }
}
