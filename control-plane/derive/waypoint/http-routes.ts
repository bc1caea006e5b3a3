import type {
  RouteAction_HashPolicySchema,
  RouteAction_RequestMirrorPolicySchema,
} from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import { FractionalPercent_DenominatorType } from '#api/envoy/gen/envoy/type/v3/percent_pb.ts';
import type { RouteMetadata } from '#api/envoy/metadata.ts';
import type { HttpMatch, RouteFilter } from '../../source/route-objects.ts';
import type { GrpcEntry, HttpEntry, ResolvedBackend } from '../routes/attached.ts';
import { type BackendCluster, clustersOf, liftedFilters, targetOf, weightedCluster } from './backends.ts';
import type { RouteFaults } from './faults.ts';
import { hasImpossibleEdit, headerEdits } from './header-edits.ts';
import { type Fields, ownMetadata } from './messages.ts';
import { editPath } from './path-edits.ts';
import { redirectAction } from './redirects.ts';
import { type Patience, patienceFields, type RouteActionFields } from './route-actions.ts';
import type { RouteFields } from './route-configurations.ts';
import { corsSettings, sessionMetadata, sessionSettings } from './route-extensions.ts';
import { grpcMatch, httpMatch } from './route-match.ts';
import type { ServiceBook } from './service-book.ts';
import { type Target, targetName } from './target.ts';

/** A route, and the ports that it sends to, whose clusters have to be there. */
export interface MadeRoute {
  readonly route: RouteFields;
  readonly targets: readonly Target[];
}

/** What the routes of a port have in common. */
export interface RouteSetting {
  readonly book: ServiceBook;
  /** Of the service. */
  readonly port: number;
  readonly faultsOf: (entry: HttpEntry | GrpcEntry) => RouteFaults;
}

type Entry = HttpEntry | GrpcEntry;
type Action = NonNullable<RouteFields['action']>;

const FAILED: Action = { case: 'directResponse', value: { status: 500 } };

/** The routes of HTTPRoutes, in their order. One that was refused answers 500. */
export function httpRoutes(setting: RouteSetting, entries: readonly HttpEntry[]): readonly MadeRoute[] {
  return entries.map((entry) => {
    const { timeouts, retry } = entry.spec;
    const patience = {
      requestMs: timeouts.requestMs ?? 0,
      tryMs: timeouts.backendRequestMs ?? 0,
      ...(retry && { retry }),
    };
    const match = httpMatch(entry.match);
    return makeRoute(setting, entry, { match, path: entry.match.path, patience, isGrpc: false });
  });
}

/** The routes of GRPCRoutes. */
export function grpcRoutes(setting: RouteSetting, entries: readonly GrpcEntry[]): readonly MadeRoute[] {
  const patience = { requestMs: 0, tryMs: 0 };
  return entries.map((entry) =>
    makeRoute(setting, entry, { match: grpcMatch(entry.match), path: undefined, patience, isGrpc: true }),
  );
}

interface RouteParts {
  readonly match: NonNullable<RouteFields['match']>;
  readonly path: HttpMatch['path'];
  readonly patience: Patience;
  readonly isGrpc: boolean;
}

function makeRoute(setting: RouteSetting, entry: Entry, parts: RouteParts): MadeRoute {
  const clusters = clustersOf(setting.book, entry, parts.isGrpc);
  const filters = [...entry.spec.filters, ...liftedFilters(entry.backends)];
  const action = decideAction(setting, entry, parts, clusters, filters) ?? FAILED;
  const faults = setting.faultsOf(entry);
  const cors = filters.find((filter) => filter.kind === 'cors');
  const session = entry.spec.sessionPersistence;
  const route: RouteFields = {
    name: `${entry.object} rule ${entry.rule} match ${entry.matchIndex}`,
    match: parts.match,
    action,
    metadata: ownMetadata(metadataOf(entry, parts.patience, faults)),
    ...headerEdits(filters),
    typedPerFilterConfig: {
      ...faults.settings,
      ...(cors && corsSettings(cors)),
      ...(session && sessionSettings(session)),
    },
  };
  const mirrored = [...entry.mirrors.values()].flatMap(
    (mirror) => targetOf(setting.book, mirror, parts.isGrpc) ?? [],
  );
  return { route, targets: [...clusters.flatMap(({ target }) => target ?? []), ...mirrored] };
}

/** What becomes of a request that matches; undefined where nothing can. */
function decideAction(
  setting: RouteSetting,
  entry: Entry,
  parts: RouteParts,
  clusters: readonly BackendCluster[],
  filters: readonly RouteFilter[],
): Action | undefined {
  if (entry.refused !== undefined || hasImpossibleEdit(filters)) return undefined;
  const redirect = filters.find((filter) => filter.kind === 'redirect');
  if (redirect !== undefined) {
    const value = redirectAction(redirect, parts.path, setting.port);
    return value && { case: 'redirect', value };
  }
  const rewrite = filters.find((filter) => filter.kind === 'rewrite');
  const path = rewrite?.path && rewritePath(parts.path, rewrite.path);
  const hasShare = clusters.some(({ weight }) => weight > 0);
  if (!hasShare || (rewrite?.path !== undefined && path === undefined)) return undefined;
  const host = rewrite?.hostname;
  return {
    case: 'route',
    value: {
      clusterSpecifier: clusterSpecifier(clusters),
      ...patienceFields(parts.patience),
      ...path,
      ...(host !== undefined && { hostRewriteSpecifier: { case: 'hostRewriteLiteral', value: host } }),
      requestMirrorPolicies: mirrorPolicies(setting.book, entry, parts.isGrpc),
      hashPolicy: hashPolicies(setting.book, clusters),
    },
  };
}

function clusterSpecifier(
  clusters: readonly BackendCluster[],
): NonNullable<RouteActionFields['clusterSpecifier']> {
  const [first] = clusters;
  return clusters.length === 1 && first?.filters.length === 0
    ? { case: 'cluster', value: first.name }
    : { case: 'weightedClusters', value: { clusters: clusters.map(weightedCluster) } };
}

function rewritePath(
  path: HttpMatch['path'],
  modifier: Parameters<typeof editPath>[1],
): Pick<RouteActionFields, 'prefixRewrite' | 'regexRewrite'> | undefined {
  const edit = editPath(path, modifier);
  switch (edit.kind) {
    case 'none':
      return {};
    case 'prefix':
      return { prefixRewrite: edit.value };
    case 'regex':
      return { regexRewrite: edit.value };
    case 'impossible':
      return undefined;
  }
}

/** A mirror whose backend is invalid gets nothing; the request itself is served. */
function mirrorPolicies(
  book: ServiceBook,
  { spec, mirrors }: Entry,
  isGrpc: boolean,
): Fields<typeof RouteAction_RequestMirrorPolicySchema>[] {
  return spec.filters.flatMap((filter, index) => {
    const backend: ResolvedBackend | undefined = mirrors.get(index);
    const target = backend && targetOf(book, backend, isGrpc);
    if (filter.kind !== 'mirror' || target === undefined || filter.numerator <= 0) return [];
    const share = Math.min(1, filter.numerator / filter.denominator);
    return [
      {
        cluster: targetName(target),
        runtimeFraction: {
          defaultValue: {
            numerator: Math.round(share * 1e6),
            denominator: FractionalPercent_DenominatorType.MILLION,
          },
        },
        disableShadowHostSuffixAppend: true,
      },
    ];
  });
}

/** By what the backends want their requests spread; the first that a request has counts. */
function hashPolicies(
  book: ServiceBook,
  clusters: readonly BackendCluster[],
): Fields<typeof RouteAction_HashPolicySchema>[] {
  const policies = clusters.flatMap(({ target }) => (target ? book.balancingOf(target.info).hashPolicy : []));
  const distinct = new Map(policies.map((policy) => [JSON.stringify(policy), policy]));
  return [...distinct.values()].map((policy) => ({ ...policy, terminal: true }));
}

function metadataOf(entry: Entry, { retry }: Patience, faults: RouteFaults): RouteMetadata {
  const session = entry.spec.sessionPersistence;
  return {
    object: entry.object,
    rule: entry.rule,
    ...(entry.ruleName !== undefined && { rule_name: entry.ruleName }),
    ...(faults.metadata.length > 0 && { faults: faults.metadata }),
    ...(retry && { retry: 'explicit' }),
    ...(session && sessionMetadata(session)),
  };
}
