import { formatHostPort } from '#api/address.ts';
import type { HeaderList } from '../exchange.ts';
import type { Cluster, Endpoint, SessionPersistence, WaypointConfig, WeightedBackend } from '../model.ts';
import { cookieValue, firstValue } from './headers.ts';
import { decodeToken, encodeAddress, encodeToken, type SessionToken } from './session-token.ts';

/** A session that is going on: its endpoint is still one of its cluster's. */
export interface ActiveSession {
  readonly backend: WeightedBackend;
  readonly cluster: Cluster;
  readonly endpoint: Endpoint;
  readonly token: SessionToken;
}

/** Where a request's session is looked for. */
export interface SessionInput {
  readonly headers: HeaderList;
  /** Canonical. */
  readonly path: string;
  /** Milliseconds since the epoch. */
  readonly nowMs: number;
  readonly backends: readonly WeightedBackend[];
  readonly clusters: WaypointConfig['clusters'];
}

/**
 * The session of a request; undefined: it has none, or one that is over, or one whose endpoint is gone or not healthy, or of a
 * backend with the weight 0. Sessions come before weights. What a client says counts only if it names an endpoint that the
 * route could have chosen, so that there is nothing to gain by forging it.
 */
export function findSession(policy: SessionPersistence, input: SessionInput): ActiveSession | undefined {
  if (!isInPath(policy.path, input.path)) return undefined;
  const text =
    policy.kind === 'cookie'
      ? cookieValue(input.headers, policy.name)
      : firstValue(input.headers, policy.name);
  const token = text === undefined ? undefined : decodeToken(text);
  if (token === undefined || isOver(policy, token, input.nowMs)) return undefined;
  for (const backend of input.backends) {
    const cluster = backend.weight > 0 ? input.clusters.get(backend.cluster) : undefined;
    const endpoint = cluster === undefined ? undefined : endpointsOf(cluster).get(token.address);
    if (cluster !== undefined && endpoint !== undefined && endpoint.health !== 'unhealthy')
      return { backend, cluster, endpoint, token };
  }
  return undefined;
}

/**
 * What goes onto an answer, so that the client comes back to the endpoint that gave it: nothing while it knows, and its idle time
 * needs no new mark.
 */
export function sessionHeaders(
  policy: SessionPersistence,
  session: ActiveSession | undefined,
  answered: { readonly endpoint: Endpoint; readonly path: string; readonly nowMs: number },
): HeaderList {
  if (!isInPath(policy.path, answered.path)) return [];
  const address = formatHostPort(answered.endpoint.address);
  const before = session?.token.address === address ? session.token : undefined;
  const now = Math.floor(answered.nowMs / 1000);
  if (before !== undefined && !needsMark(policy, before, answered.nowMs)) return [];
  const token: SessionToken = {
    address,
    ...(policy.ttlSeconds > 0 ? { expires: before?.expires ?? now + policy.ttlSeconds } : {}),
    ...(policy.absoluteMs === undefined ? {} : { created: before?.created ?? now }),
    ...(policy.idleMs === undefined ? {} : { used: now }),
  };
  if (policy.kind === 'cookie') return ['set-cookie', setCookie(policy, token, now)];
  const isPlain = token.created === undefined && token.used === undefined;
  return [policy.name, isPlain ? encodeAddress(address) : encodeToken(token)];
}

/** Envoy's own form of the attributes. */
function setCookie(policy: SessionPersistence, token: SessionToken, now: number): string {
  const age = token.expires === undefined ? '' : `; Max-Age=${token.expires - now}`;
  const path = policy.path === '' ? '' : `; Path=${policy.path}`;
  return `${policy.name}="${encodeToken(token)}"${age}${path}; HttpOnly`;
}

function isOver(policy: SessionPersistence, token: SessionToken, nowMs: number): boolean {
  if (policy.ttlSeconds > 0 && policy.kind === 'cookie' && token.expires === undefined) return true;
  if (token.expires !== undefined && nowMs > token.expires * 1000) return true;
  const { idleMs, absoluteMs } = policy;
  if (idleMs !== undefined && nowMs - (token.used ?? 0) * 1000 > idleMs) return true;
  return absoluteMs !== undefined && nowMs - (token.created ?? 0) * 1000 > absoluteMs;
}

/** A session with an idle time is marked anew when a tenth of that has gone by. */
function needsMark(policy: SessionPersistence, token: SessionToken, nowMs: number): boolean {
  return (
    policy.idleMs !== undefined && nowMs - (token.used ?? 0) * 1000 >= Math.max(1000, policy.idleMs / 10)
  );
}

/** RFC 6265, 5.1.4. */
function isInPath(cookiePath: string, path: string): boolean {
  if (cookiePath === '' || cookiePath === '/') return true;
  if (!path.startsWith(cookiePath)) return false;
  return cookiePath.endsWith('/') || path.length === cookiePath.length || path[cookiePath.length] === '/';
}

const BY_ADDRESS: WeakMap<readonly Endpoint[], ReadonlyMap<string, Endpoint>> = new WeakMap();

function endpointsOf({ endpoints }: Cluster): ReadonlyMap<string, Endpoint> {
  const known = BY_ADDRESS.get(endpoints);
  if (known !== undefined) return known;
  const byAddress = new Map(endpoints.map((endpoint) => [formatHostPort(endpoint.address), endpoint]));
  BY_ADDRESS.set(endpoints, byAddress);
  return byAddress;
}
