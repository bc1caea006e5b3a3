import type { Fault, Origin, WaypointConfig, WeightedBackend } from '#waypoint/model.ts';
import type { SplitCount } from './waypoint-report.ts';

/** `routes[]` of the status. */
export interface RouteStatusEntry {
  /** `HTTPRoute pay/ledger`. */
  readonly object: string;
  /** As the Gateway API writes it. */
  readonly parents: readonly unknown[];
  readonly split: readonly BackendSplit[];
}

/** What a backend of a rule is meant to get, and got. */
export interface BackendSplit {
  readonly rule: number;
  /** `namespace/name:port`; `invalid (backend 1)` for one that cannot be: its share is answered 500. */
  readonly backend: string;
  readonly weight: number;
  /** Requests, and TCP connections, since the waypoints' processes started. */
  readonly requests: number;
  /** Its share of the rule's requests, 0 to 1; null before the first. */
  readonly observed: number | null;
}

/** A fault that is in force: `faults[]` of the status. */
export interface FaultStatus {
  readonly name: string;
  /** `TrafficPolicy pay/chaos`. */
  readonly policy: string;
  /** 0 to 100. */
  readonly percent: number;
  /** `aborts with 503`, `delays 2000 ms`. */
  readonly does: string;
  readonly where: 'downstream' | 'upstream';
  /** RFC 3339: when it ends by itself. */
  readonly endsAt: string;
  /** What it is injected into: routes (or services without one), sorted. */
  readonly affects: readonly string[];
}

/** Puts together what the control plane says of routes and what waypoints are told and counted. */
export function routeStatuses(
  routes: readonly { readonly object: string; readonly parents: readonly unknown[] }[],
  configs: readonly WaypointConfig[],
  counts: readonly SplitCount[],
): readonly RouteStatusEntry[] {
  const wanted = wantedSplits(configs);
  const counted = new Map<string, number>();
  for (const { object, rule, backend, requests } of counts) {
    const key = splitKey(object, rule, backend);
    counted.set(key, (counted.get(key) ?? 0) + requests);
  }
  return routes.map(({ object, parents }) => ({
    object,
    parents,
    split: [...(wanted.get(object) ?? [])]
      .toSorted(([a], [b]) => a - b)
      .flatMap(([rule, backends]) => splitOf(object, rule, backends, counted)),
  }));
}

/** The faults that waypoints are told of and that have not ended, by policy and name. */
export function faultsInForce(configs: readonly WaypointConfig[], nowMs: number): readonly FaultStatus[] {
  const found = new Map<string, { readonly fault: Fault; readonly affects: Set<string> }>();
  for (const config of configs) {
    for (const { fault, target } of allFaults(config)) {
      if (fault.expires_at_ms <= nowMs) continue;
      const key = `${fault.policy} ${fault.name}`;
      const entry = found.get(key) ?? { fault, affects: new Set<string>() };
      found.set(key, entry);
      entry.affects.add(target);
    }
  }
  return [...found.values()].map(({ fault, affects }) => ({
    name: fault.name,
    policy: fault.policy,
    percent: fault.percent,
    does: describeFault(fault),
    where: fault.where,
    endsAt: new Date(fault.expires_at_ms).toISOString(),
    affects: [...affects].sort(),
  }));
}

/** `delays 2000 ms, aborts with 503`. */
export function describeFault(fault: Fault): string {
  const jitter = fault.delay_jitter_ms === undefined ? '' : ` and up to ${fault.delay_jitter_ms} ms more`;
  return [
    ...(fault.delay_ms === undefined ? [] : [`delays ${fault.delay_ms} ms${jitter}`]),
    ...(fault.abort_http_status === undefined ? [] : [`aborts with ${fault.abort_http_status}`]),
    ...(fault.abort_grpc_status === undefined ? [] : [`aborts with gRPC status ${fault.abort_grpc_status}`]),
    ...(fault.response_kbps === undefined ? [] : [`lets ${fault.response_kbps} KiB a second through`]),
  ].join(', ');
}

/** By object, then by rule. A rule is the same wherever it holds; of one with several matches, one says it. */
function wantedSplits(
  configs: readonly WaypointConfig[],
): ReadonlyMap<string, ReadonlyMap<number, ReadonlyMap<string, number>>> {
  const splits = new Map<string, Map<number, ReadonlyMap<string, number>>>();
  for (const config of configs) {
    for (const { origin, backends } of allForwards(config)) {
      if (origin.object === '') continue;
      const rules = splits.get(origin.object) ?? new Map<number, ReadonlyMap<string, number>>();
      splits.set(origin.object, rules);
      if (!rules.has(origin.rule)) rules.set(origin.rule, weightsOf(config, backends));
    }
  }
  return splits;
}

function weightsOf(
  config: WaypointConfig,
  backends: readonly WeightedBackend[],
): ReadonlyMap<string, number> {
  const weights = new Map<string, number>();
  for (const { cluster, weight } of backends) {
    const backend = backendName(config, cluster);
    weights.set(backend, (weights.get(backend) ?? 0) + weight);
  }
  return weights;
}

/** Of a cluster, as people know it. */
export function backendName({ clusters }: WaypointConfig, cluster: string): string {
  const known = clusters.get(cluster);
  if (known !== undefined) return known.backend;
  const [kind, , , index] = cluster.split('|');
  return kind === 'invalid' ? `invalid (backend ${index})` : cluster;
}

function* allForwards(
  config: WaypointConfig,
): Generator<{ readonly origin: Origin; readonly backends: readonly WeightedBackend[] }> {
  for (const { routes } of config.routes.values()) {
    for (const { origin, action } of routes) {
      if (action.kind === 'forward') yield { origin, backends: action.backends };
    }
  }
  for (const { tcp } of config.frontends.all()) yield* tcp;
}

function* allFaults(config: WaypointConfig): Generator<{ readonly fault: Fault; readonly target: string }> {
  const services = new Map([...config.frontends.all()].map((one) => [one.routeTable, one.service]));
  for (const { name, routes } of config.routes.values()) {
    for (const { origin, faults } of routes) {
      const target = origin.object === '' ? `service ${services.get(name) ?? name}` : origin.object;
      for (const fault of faults) yield { fault, target };
    }
  }
}

function splitOf(
  object: string,
  rule: number,
  backends: ReadonlyMap<string, number>,
  counted: ReadonlyMap<string, number>,
): readonly BackendSplit[] {
  const requestsTo = (backend: string): number => counted.get(splitKey(object, rule, backend)) ?? 0;
  const total = [...backends.keys()].reduce((sum, backend) => sum + requestsTo(backend), 0);
  return [...backends].map(([backend, weight]) => ({
    rule,
    backend,
    weight,
    requests: requestsTo(backend),
    observed: total === 0 ? null : Math.round((requestsTo(backend) / total) * 10_000) / 10_000,
  }));
}

function splitKey(object: string, rule: number, backend: string): string {
  return `${object} ${rule} ${backend}`;
}
