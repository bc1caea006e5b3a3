import type { Cluster, Frontend, TcpRoute, WaypointConfig, WeightedBackend } from '../model.ts';
import type { SmoothWeights } from './weights.ts';

/** What becomes of a connection that is not HTTP. */
export type StreamDecision =
  | {
      readonly kind: 'forward';
      readonly route: TcpRoute;
      readonly backend: WeightedBackend;
      readonly cluster: Cluster;
    }
  | {
      readonly kind: 'refused';
      readonly reason: string;
      /** Whose share is refused; absent: there is none for the connection. */
      readonly route?: TcpRoute;
      /** What was chosen and is no cluster. */
      readonly cluster?: string;
    };

/**
 * Decides where a connection goes: by the name in its ClientHello (the exact one before the longest `*.` one before none), then by
 * weight. A backend that is none refuses its share.
 * @param serverName lower case; undefined for what is not TLS or has none
 */
export function decideStream(input: {
  readonly config: WaypointConfig;
  /** The one of the tunnel; the newest of its name counts. */
  readonly frontend: Frontend;
  readonly serverName: string | undefined;
  readonly weights: Pick<SmoothWeights, 'pick'>;
}): StreamDecision {
  const frontend = input.config.frontends.named(input.frontend.name) ?? input.frontend;
  if (frontend.refuse !== undefined) return { kind: 'refused', reason: frontend.refuse };
  const route = routeFor(frontend.tcp, input.serverName);
  if (route === undefined)
    return { kind: 'refused', reason: `no route for the server name ${input.serverName ?? '(none)'}` };
  const place = frontend.tcp.indexOf(route);
  const owner = { table: frontend.name, name: `tcp ${place}`, origin: route.origin };
  const backend = input.weights.pick(route.backends, owner);
  if (backend === undefined) return { kind: 'refused', reason: 'no backend has a weight above 0', route };
  const cluster = input.config.clusters.get(backend.cluster);
  if (cluster === undefined) {
    const reason = `there is no cluster ${backend.cluster}`;
    return { kind: 'refused', reason, route, cluster: backend.cluster };
  }
  return { kind: 'forward', route, backend, cluster };
}

function routeFor(routes: readonly TcpRoute[], serverName: string | undefined): TcpRoute | undefined {
  let best: TcpRoute | undefined;
  let bestFit = -1;
  for (const route of routes) {
    const fit = fitOf(route.serverNames, serverName);
    if (fit > bestFit) {
      best = route;
      bestFit = fit;
    }
  }
  return best;
}

/** Characters of the name that are named; -1: it does not fit. */
function fitOf(names: readonly string[], serverName: string | undefined): number {
  if (names.length === 0) return 0;
  if (serverName === undefined) return -1;
  if (names.includes(serverName)) return Number.POSITIVE_INFINITY;
  const suffixes = names.filter((name) => name.startsWith('*.') && serverName.endsWith(name.slice(1)));
  return Math.max(-1, ...suffixes.map((name) => name.length));
}
