import type { WeightedCluster_ClusterWeightSchema } from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import type { RouteFilter } from '../../source/route-objects.ts';
import type { ResolvedBackend } from '../routes/attached.ts';
import { hasImpossibleEdit, headerEdits } from './header-edits.ts';
import type { Fields } from './messages.ts';
import { invalidClusterName } from './names.ts';
import type { ServiceBook } from './service-book.ts';
import { type Target, targetName } from './target.ts';

/** A backend with its cluster. */
export interface BackendCluster {
  readonly name: string;
  readonly weight: number;
  readonly filters: readonly RouteFilter[];
  /** Absent: there is no such cluster, and its share is answered 500. */
  readonly target?: Target;
}

/** Filters of a backend that a weighted cluster can do by itself. */
const OWN_FILTERS: ReadonlySet<RouteFilter['kind']> = new Set(['request-headers', 'response-headers']);
/** Filters of a rule's only backend that the route can do as well. */
const LIFTED_FILTERS: ReadonlySet<RouteFilter['kind']> = new Set(['redirect', 'rewrite', 'cors']);

/** The clusters of a rule's backends, in their order. */
export function clustersOf(
  book: ServiceBook,
  { object, rule, backends }: { object: string; rule: number; backends: readonly ResolvedBackend[] },
  isGrpc = false,
): readonly BackendCluster[] {
  const isAlone = backends.length === 1;
  return backends.map((backend, index): BackendCluster => {
    const invalid = { name: invalidClusterName(object, rule, index), weight: backend.weight, filters: [] };
    const possible = backend.filters.every(
      ({ kind }) => OWN_FILTERS.has(kind) || (isAlone && LIFTED_FILTERS.has(kind)),
    );
    if (!possible || hasImpossibleEdit(backend.filters)) return invalid;
    const target = targetOf(book, backend, isGrpc);
    if (target === undefined) return invalid;
    return { name: targetName(target), weight: backend.weight, filters: backend.filters, target };
  });
}

/** The port of a service that a backend stands for; undefined when it is invalid. */
export function targetOf(
  book: ServiceBook,
  { target }: ResolvedBackend,
  isGrpc: boolean,
): Target | undefined {
  if (target.kind === 'invalid') return undefined;
  const info = book.serviceOf(target.service);
  const port = info?.service.ports.find(({ servicePort }) => servicePort === target.port);
  if (info === undefined || port === undefined) return undefined;
  return { info, port, ...(isGrpc && port.appProtocol === 'HTTP11' && { overHttp2: true }) };
}

/** Filters of a rule's only backend that hold for the whole rule. */
export function liftedFilters(backends: readonly ResolvedBackend[]): readonly RouteFilter[] {
  const [first, ...others] = backends;
  if (first === undefined || others.length > 0) return [];
  return first.filters.filter(({ kind }) => LIFTED_FILTERS.has(kind));
}

/** A cluster with its share and its own headers. */
export function weightedCluster({
  name,
  weight,
  filters,
}: BackendCluster): Fields<typeof WeightedCluster_ClusterWeightSchema> {
  return { name, weight, ...headerEdits(filters) };
}
