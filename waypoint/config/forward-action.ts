import type {
  RetryPolicy as EnvoyRetry,
  RouteAction,
  RouteAction_HashPolicy,
  RouteAction_RequestMirrorPolicy,
} from '#api/envoy/gen/envoy/config/route/v3/route_components_pb.ts';
import { PreviousHostsPredicateSchema } from '#api/envoy/gen/envoy/extensions/retry/host/previous_hosts/v3/previous_hosts_pb.ts';
import type {
  ForwardAction,
  HashSource,
  Mirror,
  RequestMatch,
  RetryPolicy,
  SessionPersistence,
  WeightedBackend,
} from '../model.ts';
import { refuse } from './config-error.ts';
import { holds, toMs, toPercent } from './decode.ts';
import { compileMutations, headerName, NO_MUTATIONS } from './header-mutations.ts';
import { compilePrefix, compileRegexRewrite } from './path-rewrite.ts';

/** Envoy's, for a route that does not say. */
const DEFAULT_TIMEOUT_MS = 15_000;

/** @throws ConfigError */
export function compileForward(
  action: RouteAction,
  match: RequestMatch,
  session: SessionPersistence | undefined,
): ForwardAction {
  if (action.idleTimeout !== undefined && toMs(action.idleTimeout) > 0)
    refuse('RouteAction.idle_timeout other than 0s is not supported');
  const host = action.hostRewriteSpecifier;
  const pathRewrite = compilePathRewrite(action, match);
  return {
    kind: 'forward',
    backends: compileBackends(action),
    ...(host.case === 'hostRewriteLiteral' && host.value !== '' ? { hostRewrite: host.value } : {}),
    ...(pathRewrite === undefined ? {} : { pathRewrite }),
    mirrors: action.requestMirrorPolicies.map(compileMirror),
    timeoutMs: action.timeout === undefined ? DEFAULT_TIMEOUT_MS : toMs(action.timeout),
    retry: compileRetry(action.retryPolicy),
    ...(session === undefined ? {} : { session }),
    hashOn: compileHashOn(action.hashPolicy),
  };
}

function compileBackends({ clusterSpecifier: to }: RouteAction): readonly WeightedBackend[] {
  const plain = { requestHeaders: NO_MUTATIONS, responseHeaders: NO_MUTATIONS };
  if (to.case === 'cluster') return [{ cluster: to.value, weight: 1, ...plain }];
  if (to.case !== 'weightedClusters')
    return refuse(`cluster specifier ${to.case ?? 'none'} is not supported`);
  const backends = to.value.clusters.map((cluster) => ({
    cluster: cluster.name,
    weight: cluster.weight ?? 0,
    requestHeaders: compileMutations(cluster.requestHeadersToAdd, cluster.requestHeadersToRemove),
    responseHeaders: compileMutations(cluster.responseHeadersToAdd, cluster.responseHeadersToRemove),
  }));
  if (!backends.some((backend) => backend.weight > 0)) refuse('the weights of its clusters have the sum 0');
  return backends;
}

function compilePathRewrite(action: RouteAction, match: RequestMatch): ForwardAction['pathRewrite'] {
  const { prefixRewrite, regexRewrite } = action;
  if (regexRewrite === undefined)
    return prefixRewrite === '' ? undefined : compilePrefix(prefixRewrite, match);
  if (prefixRewrite !== '') refuse('prefix_rewrite and regex_rewrite exclude each other');
  return compileRegexRewrite(regexRewrite);
}

function compileMirror(mirror: RouteAction_RequestMirrorPolicy): Mirror {
  if (mirror.cluster === '') refuse('a mirror names no cluster');
  const fraction = mirror.runtimeFraction?.defaultValue;
  return { cluster: mirror.cluster, share: fraction === undefined ? 1 : toPercent(fraction) / 100 };
}

const RETRY_WORDS: ReadonlySet<string> = new Set([
  'connect-failure',
  'refused-stream',
  'reset',
  'retriable-status-codes',
]);

const NO_RETRY: RetryPolicy = {
  attempts: 0,
  on: { connectFailure: false, reset: false, statusCodes: [] },
  perTryTimeoutMs: 0,
  backoffMs: 0,
  maxBackoffMs: 250,
};

function compileRetry(retry: EnvoyRetry | undefined): RetryPolicy {
  if (retry === undefined) return NO_RETRY;
  const words = retry.retryOn
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '');
  const unknown = words.find((word) => !RETRY_WORDS.has(word));
  if (unknown !== undefined) refuse(`${unknown} in retry_on is not supported`);
  for (const { name, configType } of retry.retryHostPredicate)
    if (
      !holds(configType.case === 'typedConfig' ? configType.value : undefined, PreviousHostsPredicateSchema)
    )
      refuse(`retry_host_predicate ${name} is not supported`);
  for (const { name } of retry.rateLimitedRetryBackOff?.resetHeaders ?? [])
    if (name.toLowerCase() !== 'retry-after') refuse(`reset header ${name} is not supported`);
  const { baseInterval, maxInterval } = retry.retryBackOff ?? {};
  const backoffMs = baseInterval === undefined ? 0 : toMs(baseInterval);
  return {
    attempts: retry.numRetries ?? 1,
    on: {
      connectFailure: words.includes('connect-failure') || words.includes('refused-stream'),
      reset: words.includes('reset'),
      statusCodes: words.includes('retriable-status-codes') ? retry.retriableStatusCodes : [],
    },
    perTryTimeoutMs: retry.perTryTimeout === undefined ? 0 : toMs(retry.perTryTimeout),
    backoffMs,
    maxBackoffMs: maxInterval === undefined ? 10 * (backoffMs === 0 ? 25 : backoffMs) : toMs(maxInterval),
  };
}

function compileHashOn(policies: readonly RouteAction_HashPolicy[]): readonly HashSource[] {
  return policies.map(({ policySpecifier: by, terminal }, index): HashSource => {
    if (!terminal && index < policies.length - 1)
      refuse('hash policies that are not terminal are not supported');
    switch (by.case) {
      case 'header':
        return { kind: 'header', name: headerName(by.value.headerName) };
      case 'cookie':
        return { kind: 'cookie', name: by.value.name };
      case 'queryParameter':
        return { kind: 'query', name: by.value.name };
      case 'connectionProperties':
        return by.value.sourceIp
          ? { kind: 'source' }
          : refuse('a hash policy without source_ip is not supported');
      default:
        return refuse(`hash policy ${by.case ?? 'none'} is not supported`);
    }
  });
}
