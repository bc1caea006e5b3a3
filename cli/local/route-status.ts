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
  /** Requests, and TCP connections, since the waypoints' processes started. */
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
    const requestsTo = ({ rule, backend }: RouteSplit): number =>
      counted.get(splitKey(object, rule, backend)) ?? 0;
    const totals = new Map<number, number>();
    for (const share of split) totals.set(share.rule, (totals.get(share.rule) ?? 0) + requestsTo(share));
    const observedOf = (share: RouteSplit): number | null => {
      const total = totals.get(share.rule) ?? 0;
      return total === 0 ? null : Math.round((requestsTo(share) / total) * 10_000) / 10_000;
    };
    return {
      object,
      parents,
      split: split.map((share) => ({ ...share, requests: requestsTo(share), observed: observedOf(share) })),
    };
  });
}

function splitKey(object: string, rule: number, backend: string): string {
  return `${object} ${rule} ${backend}`;
}
