import type { Caller, HeaderList, RequestHead } from '../exchange.ts';
import type {
  Cluster,
  Fault,
  ForwardAction,
  Frontend,
  HeaderMutations,
  Route,
  WaypointConfig,
  WeightedBackend,
} from '../model.ts';
import { canonicalPath } from './canonical-path.ts';
import { decideCors } from './cors.ts';
import { type ChosenFaults, chooseFaults } from './faults.ts';
import { hashKey } from './hash-key.ts';
import { matchRoute } from './match.ts';
import { redirectLocation, rewritePath } from './rewrite.ts';
import { type ActiveSession, findSession } from './session.ts';
import type { SmoothWeights } from './weights.ts';

/** All that a request's way hangs on. */
export interface RequestInput {
  readonly config: WaypointConfig;
  /** The one of the tunnel; the newest of its name counts. */
  readonly frontend: Frontend;
  readonly caller: Pick<Caller, 'identity' | 'address'>;
  readonly head: Pick<RequestHead, 'method' | 'target' | 'authority' | 'headers'>;
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
  /** Random, from 0 up to 1. */
  readonly draw: () => number;
  readonly weights: Pick<SmoothWeights, 'pick'>;
  /** How many requests are under a fault now; none when it is not said. */
  readonly activeFaults?: (fault: Fault) => number;
  /** Asked before anything is done, faults included, also where no route matches; a text refuses the request for that reason. */
  readonly authorize?: (request: AuthorizedRequest) => string | undefined;
}

/** What policies see of a request. */
export interface AuthorizedRequest {
  readonly frontend: Frontend;
  readonly method: string;
  readonly authority: string;
  /** Canonical, as it is matched and goes upstream (before rewrites). */
  readonly path: string;
  readonly query: string;
  readonly headers: HeaderList;
}

/** A request that found its route. */
interface Routed {
  readonly route: Route;
  readonly path: string;
  /** From its question mark on, or empty. */
  readonly query: string;
  /** Of the request; those of its attempts are in `attemptFaults`. */
  readonly faults: ChosenFaults;
}

/** What becomes of a request. */
export type RequestDecision =
  | { readonly kind: 'bad-request'; readonly status: 400; readonly reason: string }
  | { readonly kind: 'refused'; readonly status: 403; readonly reason: string }
  /** Its routes have not come yet. */
  | { readonly kind: 'not-ready'; readonly status: 503; readonly reason: string }
  | {
      readonly kind: 'not-found';
      readonly status: 404;
      readonly table: string;
      readonly path: string;
      readonly query: string;
    }
  /** A fault ends it, after the fault's delay. */
  | (Routed & { readonly kind: 'fault-abort'; readonly abort: NonNullable<ChosenFaults['abort']> })
  | (Routed & { readonly kind: 'cors-preflight'; readonly status: 200; readonly headers: HeaderList })
  | (Routed & { readonly kind: 'redirect'; readonly status: number; readonly location: string })
  | (Routed & { readonly kind: 'direct'; readonly status: number; readonly body: string })
  /** The backend whose turn it is is none: an invalid reference. */
  | (Routed & {
      readonly kind: 'no-cluster';
      readonly status: 500;
      readonly backend: WeightedBackend;
      readonly corsHeaders: HeaderList;
    })
  | ForwardDecision;

/** A request that goes to a backend. */
export interface ForwardDecision extends Routed {
  readonly kind: 'forward';
  readonly action: ForwardAction;
  readonly backend: WeightedBackend;
  readonly cluster: Cluster;
  /** Path and query as they go upstream. */
  readonly upstreamTarget: string;
  readonly upstreamAuthority: string;
  /** One after the other: the backend's, then the route's. */
  readonly requestHeaders: readonly HeaderMutations[];
  readonly responseHeaders: readonly HeaderMutations[];
  /** In the place of those of the answer. */
  readonly corsHeaders: HeaderList;
  /** The session that chose the endpoint. */
  readonly session?: ActiveSession;
  /** Of ring-hash balancing. */
  readonly hashKey?: string;
  /** Clusters that get a copy; one that is not there gets none. */
  readonly mirrors: readonly Cluster[];
  /** To be drawn for each attempt. */
  readonly attemptFaults: readonly Fault[];
}

const NO_HEADERS: HeaderList = [];
const NONE_ACTIVE = (): number => 0;

/**
 * Decides all about a request that can be decided before it is sent: the data path does it, `explain` prints it. Draws only where
 * there is something to draw, and takes a turn of the weights only for what is forwarded.
 */
export function decideRequest(input: RequestInput): RequestDecision {
  const { config, head } = input;
  const frontend = config.frontends.named(input.frontend.name) ?? input.frontend;
  const canonical = canonicalPath(head.target);
  if (canonical.kind === 'ambiguous')
    return { kind: 'bad-request', status: 400, reason: `the path is ambiguous: ${canonical.reason}` };
  if (frontend.refuse !== undefined) return { kind: 'refused', status: 403, reason: frontend.refuse };
  const name = frontend.routeTable;
  const table = name === undefined ? undefined : config.routes.get(name);
  if (table === undefined)
    return { kind: 'not-ready', status: 503, reason: `the routes of ${frontend.name} have not come` };
  const { path, query } = canonical;
  const { method, headers, authority } = head;
  const route = matchRoute(table, { method, path, query, headers, authority });
  const denied = input.authorize?.({ frontend, method, authority, path, query, headers });
  if (denied !== undefined) return { kind: 'refused', status: 403, reason: denied };
  if (route === undefined) return { kind: 'not-found', status: 404, table: table.name, path, query };
  const faults = chooseFaults(route.faults, {
    where: 'downstream',
    headers,
    authority,
    caller: input.caller,
    nowMs: input.nowMs,
    draw: input.draw,
    active: input.activeFaults ?? NONE_ACTIVE,
  });
  return act(input, frontend, { route, path, query, faults });
}

function act(input: RequestInput, frontend: Frontend, routed: Routed): RequestDecision {
  const { route, path, query, faults } = routed;
  const { action } = route;
  if (faults.abort !== undefined) return { kind: 'fault-abort', abort: faults.abort, ...routed };
  switch (action.kind) {
    case 'direct':
      return { kind: 'direct', status: action.status, body: action.body, ...routed };
    case 'redirect': {
      const { authority } = input.head;
      const location = redirectLocation(action, route.match, { authority, path, query, port: frontend.port });
      return { kind: 'redirect', status: action.status, location, ...routed };
    }
    case 'forward':
      return forward(input, frontend, routed, action);
  }
}

function forward(
  input: RequestInput,
  frontend: Frontend,
  routed: Routed,
  action: ForwardAction,
): RequestDecision {
  const { route, path, query } = routed;
  const { head, config } = input;
  const cors = decideCors(route.cors, head);
  if (cors.kind === 'preflight')
    return { kind: 'cors-preflight', status: 200, headers: cors.headers, ...routed };
  const session = sessionOf(input, action, path);
  const backend = session?.backend ?? pick(input, frontend, route, action);
  const cluster = session?.cluster ?? config.clusters.get(backend.cluster);
  const corsHeaders = cors.kind === 'actual' ? cors.headers : NO_HEADERS;
  if (cluster === undefined) return { kind: 'no-cluster', status: 500, backend, corsHeaders, ...routed };
  const key =
    action.hashOn.length === 0
      ? undefined
      : hashKey(action.hashOn, { headers: head.headers, query, callerIp: input.caller.address.ip });
  return {
    kind: 'forward',
    ...routed,
    action,
    backend,
    cluster,
    upstreamTarget: rewritePath(action.pathRewrite, route.match, path) + query,
    upstreamAuthority: action.hostRewrite ?? head.authority,
    requestHeaders: [backend.requestHeaders, route.requestHeaders],
    responseHeaders: [backend.responseHeaders, route.responseHeaders],
    corsHeaders,
    ...(session === undefined ? {} : { session }),
    ...(key === undefined ? {} : { hashKey: key }),
    mirrors: mirrorsOf(input, action),
    attemptFaults: route.faults.length === 0 ? route.faults : route.faults.filter(isUpstream),
  };
}

function isUpstream(fault: Fault): boolean {
  return fault.where === 'upstream';
}

function sessionOf(input: RequestInput, action: ForwardAction, path: string): ActiveSession | undefined {
  if (action.session === undefined) return undefined;
  return findSession(action.session, {
    headers: input.head.headers,
    path,
    nowMs: input.nowMs,
    backends: action.backends,
    clusters: input.config.clusters,
  });
}

function pick(input: RequestInput, frontend: Frontend, route: Route, action: ForwardAction): WeightedBackend {
  const table = frontend.routeTable ?? '';
  const picked = input.weights.pick(action.backends, { table, name: route.name, origin: route.origin });
  if (picked === undefined) throw new TypeError(`the weights of ${route.name} have the sum 0`);
  return picked;
}

function mirrorsOf(input: RequestInput, { mirrors }: ForwardAction): readonly Cluster[] {
  if (mirrors.length === 0) return [];
  return mirrors.flatMap(({ cluster, share }) =>
    share > 0 && input.draw() < share ? (input.config.clusters.get(cluster) ?? []) : [],
  );
}
