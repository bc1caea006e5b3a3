import { formatHostPort, type HostPort } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import type { Identity } from '#certs/identity.ts';
import type { Cluster, Frontend, Origin, Route, WaypointConfig } from '#waypoint/model.ts';
import { decideRequest, type RequestDecision, type RequestInput } from '#waypoint/route/decide-request.ts';
import { decideStream } from '#waypoint/route/decide-stream.ts';
import { chooseFaults } from '#waypoint/route/faults.ts';
import { backendName, describeFault, formatMatch, whyNoMatch } from './route-text.ts';
import type {
  BackendExplanation,
  EndpointVerdict,
  ExplainedRequest,
  ForwardExplanation,
  WaypointExplanation,
} from './waypoint-explanation.ts';

/** What a waypoint is asked. */
export interface WaypointQuestion {
  readonly waypoint: string;
  readonly config: WaypointConfig;
  readonly source: Workload;
  readonly sourceIp: string;
  /** What the caller dialled. */
  readonly authority: HostPort;
  readonly request: ExplainedRequest;
  readonly nowMs: number;
  /** Why the listener's policies do not let the caller in; undefined: they do. */
  readonly refusalOf: (frontend: Frontend) => string | undefined;
  /** Where a rule of a route is written; null where that is not known. */
  readonly positionOf: (origin: Origin) => string | null;
  /** Asked for each endpoint in the mesh; port 0 of an endpoint is that of the authority. */
  readonly verdictAt: (address: HostPort) => EndpointVerdict | null;
}

/** Asks the functions that the waypoint asks, on what it is served. */
export function explainWaypoint(question: WaypointQuestion): WaypointExplanation {
  const { config, authority, source, waypoint } = question;
  const frontend = config.frontends.find(authority.ip, authority.port, source.namespace);
  const nothing = { waypoint, request: null, passedOver: [], route: null, faults: [] };
  if (frontend === undefined) {
    const reason = `it does not serve ${formatHostPort(authority)}`;
    return { ...nothing, listener: null, action: { kind: 'refused', status: 404, reason } };
  }
  const listener = {
    name: frontend.name,
    service: frontend.service,
    port: frontend.port,
    routes: frontend.consumerNamespace === undefined ? ('producer' as const) : ('consumer' as const),
    protocol: frontend.protocol,
  };
  const refusal = question.refusalOf(frontend);
  if (refusal !== undefined) {
    return { ...nothing, listener, action: { kind: 'refused', status: 403, reason: refusal } };
  }
  return frontend.routeTable === undefined
    ? { ...nothing, listener, ...explainStream(question, frontend) }
    : { ...nothing, listener, ...explainRequest(question, frontend) };
}

type Answer = Pick<WaypointExplanation, 'action'> & Partial<WaypointExplanation>;

function explainRequest(question: WaypointQuestion, frontend: Frontend): Answer {
  const decision = decide(question, frontend, 0);
  const { request } = question;
  switch (decision.kind) {
    case 'bad-request':
    case 'refused':
    case 'not-ready':
      return { action: { kind: 'refused', status: decision.status, reason: decision.reason } };
    case 'not-found': {
      const { path, query } = decision;
      return {
        request: { method: request.method, path, query },
        passedOver: passedOver(question, frontend, decision, undefined),
        action: { kind: 'answered', status: 404, what: 'no route fits' },
      };
    }
    default:
      return {
        request: { method: request.method, path: decision.path, query: decision.query },
        passedOver: passedOver(question, frontend, decision, decision.route),
        route: {
          name: decision.route.name,
          object: decision.route.origin.object || null,
          position: question.positionOf(decision.route.origin),
          match: formatMatch(decision.route.match),
        },
        faults: faultsFor(question, decision.route),
        action: actionOf(question, frontend, decision),
      };
  }
}

/** With the nth backend's turn, and with no fault drawn. */
function decide(question: WaypointQuestion, frontend: Frontend, turn: number): RequestDecision {
  const { config, request, nowMs } = question;
  const input: RequestInput = {
    config,
    frontend,
    caller: { identity: identityOf(question.source), address: { ip: question.sourceIp, port: 0 } },
    head: {
      method: request.method,
      target: request.target,
      authority: request.authority,
      headers: request.headers,
    },
    nowMs,
    draw: () => 1,
    weights: { pick: (backends) => backends[turn] },
  };
  return decideRequest(input);
}

function actionOf(
  question: WaypointQuestion,
  frontend: Frontend,
  decision: Extract<RequestDecision, { readonly route: Route }>,
): WaypointExplanation['action'] {
  switch (decision.kind) {
    case 'fault-abort':
      return { kind: 'answered', status: 0, what: 'a fault ends every such request' };
    case 'cors-preflight':
      return { kind: 'answered', status: decision.status, what: 'CORS preflight' };
    case 'redirect':
      return { kind: 'answered', status: decision.status, what: `redirect to ${decision.location}` };
    case 'direct':
      return {
        kind: 'answered',
        status: decision.status,
        what: 'the route has no backend that could take it',
      };
    case 'no-cluster':
    case 'forward':
      return explainForward(question, frontend, decision);
  }
}

function explainForward(
  question: WaypointQuestion,
  frontend: Frontend,
  decision: Extract<RequestDecision, { readonly kind: 'forward' | 'no-cluster' }>,
): ForwardExplanation {
  const { request, config } = question;
  const { action } = decision.route;
  if (action.kind !== 'forward') throw new TypeError(`${decision.route.name} does not forward`);
  const session = decision.kind === 'forward' ? decision.session : undefined;
  const all = action.backends.map((backend, turn) => ({ backend, sent: decide(question, frontend, turn) }));
  const sent = all.map((one) => one.sent).find((one) => one.kind === 'forward');
  const isRewritten =
    sent !== undefined &&
    (sent.upstreamTarget !== decision.path + decision.query || sent.upstreamAuthority !== request.authority);
  const chosen =
    session === undefined ? all : all.filter(({ backend }) => backend.cluster === session.backend.cluster);
  const total = chosen.reduce((sum, { backend }) => sum + backend.weight, 0);
  return {
    kind: 'forward',
    rewrite: isRewritten ? { target: sent.upstreamTarget, authority: sent.upstreamAuthority } : null,
    timeoutMs: action.timeoutMs,
    retry: action.retry,
    mirrors: action.mirrors.map(({ cluster, share }) => ({ backend: backendName(config, cluster), share })),
    session: session === undefined ? null : formatHostPort(session.endpoint.address),
    backends: chosen.map(({ backend }) =>
      explainBackend(question, backend.cluster, backend.weight, backend.weight / total, session?.endpoint),
    ),
  };
}

function explainStream(question: WaypointQuestion, frontend: Frontend): Answer {
  const { config, request } = question;
  const [serverName = ''] = request.authority.split(':');
  const decideTurn = (turn: number): ReturnType<typeof decideStream> =>
    decideStream({ config, frontend, serverName, weights: { pick: (backends) => backends[turn] } });
  const decision = decideTurn(0);
  const { route } = decision;
  if (route === undefined) {
    const reason = decision.kind === 'refused' ? decision.reason : '';
    const names = frontend.tcp.flatMap(({ serverNames }) => serverNames);
    // The name in a ClientHello need not be that which was dialled.
    const hint =
      frontend.refuse !== undefined || names.length === 0 ? '' : `; there is for ${names.join(', ')}`;
    return { action: { kind: 'refused', status: 0, reason: `${reason}${hint}` } };
  }
  const total = route.backends.reduce((sum, { weight }) => sum + weight, 0);
  const names = route.serverNames.join(' ');
  return {
    route: {
      name: route.origin.object || 'default',
      object: route.origin.object || null,
      position: question.positionOf(route.origin),
      match: names === '' ? 'every connection' : `TLS to ${names}`,
    },
    action: {
      kind: 'forward',
      rewrite: null,
      timeoutMs: 0,
      retry: null,
      mirrors: [],
      session: null,
      backends: route.backends.map(({ cluster, weight }) =>
        explainBackend(question, cluster, weight, weight / total, undefined),
      ),
    },
  };
}

function explainBackend(
  { config, authority, verdictAt }: WaypointQuestion,
  name: string,
  weight: number,
  share: number,
  only: Cluster['endpoints'][number] | undefined,
): BackendExplanation {
  const cluster = config.clusters.get(name);
  const endpoints = (cluster?.endpoints ?? [])
    .filter((endpoint) => only === undefined || endpoint === only)
    .map(({ address, health, tunnel, workload }) => {
      const at = address.port === 0 ? { ...address, port: authority.port } : address;
      return {
        address: formatHostPort(at),
        workload: `${workload.namespace}/${workload.name}`,
        health,
        tunnel,
        verdict: tunnel === 'HBONE' ? verdictAt(at) : null,
      };
    });
  return {
    backend: backendName(config, name),
    weight,
    share: Number.isFinite(share) ? share : 0,
    balancing: cluster?.balancing ?? null,
    problem: problemOf(cluster),
    endpoints,
  };
}

function problemOf(cluster: Cluster | undefined): string | null {
  if (cluster === undefined) return 'it is no valid backend: 500';
  return cluster.endpoints.some(({ health }) => health === 'healthy') ? null : 'no healthy endpoint: 503';
}

/** Those before the one that fits. */
function passedOver(
  { config, request }: WaypointQuestion,
  frontend: Frontend,
  { path, query }: { readonly path: string; readonly query: string },
  taken: Route | undefined,
): WaypointExplanation['passedOver'] {
  const routes = config.routes.get(frontend.routeTable ?? '')?.routes ?? [];
  const end = taken === undefined ? routes.length : routes.indexOf(taken);
  return routes.slice(0, end).map((route) => ({
    route: route.name,
    match: formatMatch(route.match),
    why: whyNoMatch(route, { ...request, path, query }),
  }));
}

/** Each by itself, as if it were drawn. */
function faultsFor(question: WaypointQuestion, route: Route): WaypointExplanation['faults'] {
  const { request, nowMs, source } = question;
  return route.faults
    .filter((fault) => {
      const certain = { ...fault, percent: 100 };
      const input = {
        where: fault.where,
        headers: request.headers,
        authority: request.authority,
        caller: { identity: identityOf(source) },
        nowMs,
        draw: () => 0,
        active: () => 0,
      };
      return chooseFaults([certain], input).faults.length > 0;
    })
    .map((fault) => ({
      name: fault.name,
      policy: fault.policy,
      percent: fault.percent,
      does: describeFault(fault),
      where: fault.where,
      endsAt: new Date(fault.expires_at_ms).toISOString(),
    }));
}

function identityOf({ trustDomain, namespace, serviceAccount }: Workload): Identity {
  return { trustDomain, namespace, serviceAccount };
}
