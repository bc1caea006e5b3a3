import { NO_MUTATIONS } from '../config/header-mutations.ts';
import { compilePattern } from '../config/pattern.ts';
import type {
  Cluster,
  Endpoint,
  Fault,
  ForwardAction,
  Frontend,
  RequestMatch,
  Route,
  RouteTable,
  TextMatch,
  WaypointConfig,
  WeightedBackend,
} from '../model.ts';
import type { RequestInput } from './decide-request.ts';
import { SmoothWeights } from './weights.ts';

/** A backend with a weight. */
export function backend(cluster: string, weight = 1): WeightedBackend {
  return { cluster, weight, requestHeaders: NO_MUTATIONS, responseHeaders: NO_MUTATIONS };
}

/** A match; of everything, unless said. */
export function match(overrides: Partial<RequestMatch> = {}): RequestMatch {
  return { path: { kind: 'prefix', value: '' }, headers: [], query: [], ...overrides };
}

/** A path's match: `=/a` exactly, `~/a.*` by a regular expression, `/a` by segments. */
export function pathOf(text: string): RequestMatch['path'] {
  if (text.startsWith('=')) return { kind: 'exact', value: text.slice(1) };
  if (text.startsWith('~')) return { kind: 'regex', pattern: compilePattern(text.slice(1)) };
  return { kind: 'prefix', value: text === '/' ? '' : text };
}

/** A text's match: `~a.*` by a regular expression, everything else exactly. */
export function textOf(text: string): TextMatch {
  return text.startsWith('~')
    ? { kind: 'regex', pattern: compilePattern(text.slice(1)) }
    : { kind: 'exact', value: text };
}

/** What forwards to some clusters. */
export function forwardTo(
  backends: readonly WeightedBackend[],
  overrides: Partial<ForwardAction> = {},
): ForwardAction {
  return {
    kind: 'forward',
    backends,
    mirrors: [],
    timeoutMs: 0,
    retry: {
      attempts: 1,
      on: { connectFailure: true, reset: false, statusCodes: [] },
      perTryTimeoutMs: 0,
      backoffMs: 0,
      maxBackoffMs: 250,
    },
    hashOn: [],
    ...overrides,
  };
}

/** A route of everything to the cluster `v1`. */
export function route(overrides: Partial<Route> = {}): Route {
  return {
    name: 'HTTPRoute pay/ledger rule 0 match 0',
    origin: { object: 'HTTPRoute pay/ledger', rule: 0 },
    match: match(),
    action: forwardTo([backend('v1')]),
    requestHeaders: NO_MUTATIONS,
    responseHeaders: NO_MUTATIONS,
    faults: [],
    ...overrides,
  };
}

/** A table. */
export function table(...routes: readonly Route[]): RouteTable {
  return { name: 'ledger', routes };
}

/** A fault for every request, that does not end. */
export function fault(overrides: Partial<Fault> = {}): Fault {
  return {
    name: 'chaos',
    policy: 'TrafficPolicy pay/chaos',
    expires_at_ms: Number.POSITIVE_INFINITY,
    where: 'downstream',
    percent: 100,
    headers: [],
    ...overrides,
  };
}

/** An endpoint at an address, port 8080. */
export function endpoint(ip: string, overrides: Partial<Endpoint> = {}): Endpoint {
  return {
    address: { ip, port: 8080 },
    health: 'healthy',
    weight: 1,
    tunnel: 'HBONE',
    identity: undefined,
    workload: { uid: ip, name: ip, namespace: 'pay' },
    ...overrides,
  };
}

/** A cluster with endpoints. */
export function cluster(name: string, endpoints: readonly Endpoint[] = []): Cluster {
  return {
    name,
    backend: `pay/${name}:80`,
    service: `pay/${name}.pay.svc.cluster.local`,
    protocol: 'http1',
    balancing: 'least-request',
    connectTimeoutMs: 5000,
    retryBudget: { percent: 20, minConcurrent: 3 },
    endpoints,
  };
}

/** The service that requests are for. */
export function frontend(overrides: Partial<Frontend> = {}): Frontend {
  return {
    name: 'ledger',
    service: 'pay/ledger.pay.svc.cluster.local',
    port: 8080,
    authorizations: [],
    protocol: 'http',
    routeTable: 'ledger',
    tcp: [],
    ...overrides,
  };
}

/** A config of one frontend and one table. */
export function configOf(
  routes: readonly Route[],
  clusters: readonly Cluster[] = [cluster('v1'), cluster('v2')],
  only: Frontend = frontend(),
): WaypointConfig {
  return {
    frontends: {
      find: () => only,
      named: (name) => (name === only.name ? only : undefined),
      all: () => [only],
    },
    routes: new Map([['ledger', table(...routes)]]),
    clusters: new Map(clusters.map((each) => [each.name, each])),
  };
}

/** A request of `shop/web` to a config, as `GET /`. */
export function requestTo(
  config: WaypointConfig,
  head: Partial<RequestInput['head']> = {},
  overrides: Partial<RequestInput> = {},
): RequestInput {
  return {
    config,
    frontend: frontend(),
    caller: {
      identity: { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'web' },
      address: { ip: '10.1.0.9', port: 40_000 },
    },
    head: { method: 'GET', target: '/', authority: 'ledger.pay:8080', headers: [], ...head },
    nowMs: 1_000_000,
    draw: () => 0,
    weights: new SmoothWeights(() => 0),
    ...overrides,
  };
}
