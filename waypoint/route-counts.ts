import type { Origin, WaypointConfig, WeightedBackend } from './model.ts';
import type { RequestRecord } from './request-record.ts';

/** What a backend of a route's rule is to get, and got. */
export interface SplitReport {
  /** `HTTPRoute pay/ledger`. */
  readonly object: string;
  /** From 0. */
  readonly rule: number;
  readonly ruleName?: string;
  /** `namespace/name:port`; `invalid (backend 1)` for one that cannot be. */
  readonly backend: string;
  readonly weight: number;
  /** Requests and TCP connections since this process, or the rule's present weights, came into force. */
  readonly requests: number;
}

interface Rule {
  readonly origin: Origin;
  readonly weights: ReadonlyMap<string, number>;
  readonly counts: Map<string, number>;
}

/** Counts where requests of each rule went, for as long as the rule's weights stay the same. */
export class RouteCounts {
  #rules = new Map<string, Rule>();

  /** A configuration comes into force. */
  follow(config: WaypointConfig): void {
    const rules = new Map<string, Rule>();
    for (const { origin, backends } of forwards(config)) {
      const key = keyOf(origin);
      if (origin.object === '' || rules.has(key)) continue;
      const weights = weightsOf(config, backends);
      const before = this.#rules.get(key);
      const counts =
        before !== undefined && isSame(before.weights, weights) ? before.counts : new Map<string, number>();
      rules.set(key, { origin, weights, counts });
    }
    this.#rules = rules;
  }

  add({ origin, backend, cluster }: RequestRecord): void {
    if (origin === undefined || origin.object === '') return;
    const counts = this.#rules.get(keyOf(origin))?.counts;
    const name = backend === '' ? nameOfAbsent(cluster) : backend;
    if (counts !== undefined && name !== '') counts.set(name, (counts.get(name) ?? 0) + 1);
  }

  report(): readonly SplitReport[] {
    return [...this.#rules.values()].flatMap(({ origin, weights, counts }) =>
      [...weights].map(([backend, weight]) => ({
        object: origin.object,
        rule: origin.rule,
        ...(origin.ruleName !== undefined && { ruleName: origin.ruleName }),
        backend,
        weight,
        requests: counts.get(backend) ?? 0,
      })),
    );
  }
}

function keyOf({ object, rule }: Origin): string {
  return `${object} ${rule}`;
}

function* forwards(
  config: WaypointConfig,
): Iterable<{ readonly origin: Origin; readonly backends: readonly WeightedBackend[] }> {
  for (const { routes } of config.routes.values()) {
    for (const { origin, action } of routes) {
      if (action.kind === 'forward') yield { origin, backends: action.backends };
    }
  }
  for (const { tcp } of config.frontends.all()) yield* tcp;
}

function weightsOf(
  config: WaypointConfig,
  backends: readonly WeightedBackend[],
): ReadonlyMap<string, number> {
  const weights = new Map<string, number>();
  for (const { cluster, weight } of backends) {
    const name = config.clusters.get(cluster)?.backend ?? nameOfAbsent(cluster);
    weights.set(name, (weights.get(name) ?? 0) + weight);
  }
  return weights;
}

/** `invalid|HTTPRoute pay/ledger|0|1` stands for a reference that leads nowhere. */
export function nameOfAbsent(cluster: string): string {
  const [kind, , , index] = cluster.split('|');
  return kind === 'invalid' ? `invalid (backend ${index})` : cluster;
}

function isSame(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): boolean {
  return a.size === b.size && [...a].every(([name, weight]) => b.get(name) === weight);
}
