import type { RouteSplit } from '#control-plane/route-splits.ts';
import type { StatusRoute } from '#control-plane/status-waypoints.ts';
import type { SplitCount } from './waypoint-report.ts';

/** `routes[]` of the status. */
export interface RouteStatusEntry {
  /** `HTTPRoute pay/ledger`. */
  readonly object: string;
  /** As the Gateway API writes it. */
  readonly parents: StatusRoute['parents'];
  readonly split: readonly BackendSplit[];
}

/** What a backend of a rule is meant to get, and got. */
export interface BackendSplit extends RouteSplit {
  /** Requests, and TCP connections, since its waypoints' processes started or the rule's weights changed. */
  readonly requests: number;
  /** Its share of the rule's requests, 0 to 1; null before the first. */
  readonly observed: number | null;
}

/** Puts together what is written and what the waypoints' processes have counted. */
export function routeStatuses(
  routes: readonly StatusRoute[],
  counts: readonly SplitCount[],
): readonly RouteStatusEntry[] {
  const counted = new Map<string, number>();
  for (const { object, rule, backend, requests } of counts) {
    const key = splitKey(object, rule, backend);
    counted.set(key, (counted.get(key) ?? 0) + requests);
  }
  return routes.map(({ object, parents, split }) => {
    const shares = [...Map.groupBy(split, ({ rule }) => rule).values()];
    return { object, parents, split: shares.flatMap((rule) => observeRule(object, rule, counted)) };
  });
}

/** A waypoint knows a backend that cannot be by its place only. */
function observeRule(
  object: string,
  shares: readonly RouteSplit[],
  counted: ReadonlyMap<string, number>,
): readonly BackendSplit[] {
  const requests = shares.map(
    ({ rule, backend }, index) =>
      counted.get(splitKey(object, rule, backend)) ??
      counted.get(splitKey(object, rule, `invalid (backend ${index})`)) ??
      0,
  );
  const total = requests.reduce((sum, count) => sum + count, 0);
  return shares.map((share, index) => {
    const count = requests[index] ?? 0;
    const observed = total === 0 ? null : Math.round((count / total) * 10_000) / 10_000;
    return { ...share, requests: count, observed };
  });
}

function splitKey(object: string, rule: number, backend: string): string {
  return `${object} ${rule} ${backend}`;
}
