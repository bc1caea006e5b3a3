import type { Cluster, Endpoint } from '../model.ts';
import { createHashRing, type HashRing } from './hash-ring.ts';
import { keyOfEndpoint } from './target.ts';

/** What a pick depends on beside the cluster. */
export interface PickOptions {
  /** For ring-hash; without one any point of the ring is as good. */
  readonly hashKey: string | undefined;
  /**
   * {@link keyOfEndpoint} of those of earlier tries: left out while there are others. (Envoy draws up to five times, and may come
   * back to one by chance.)
   */
  readonly exclude: ReadonlySet<string>;
}

/** Chooses endpoints, and knows how many requests each has. State is per process. */
export interface Balancer {
  /** One that is healthy; undefined if none is. */
  readonly pick: (cluster: Cluster, options: PickOptions) => Endpoint | undefined;
  /** A try begins. To be told once when it is over. */
  readonly begin: (cluster: Cluster, endpoint: Endpoint) => () => void;
  /** A request begins that may be tried again; likewise. */
  readonly beginRequest: (cluster: Cluster) => () => void;
  /** A retry begins; likewise. */
  readonly beginRetry: (cluster: Cluster) => () => void;
  /** Requests and retries that have begun and are not over: what a budget is about. */
  readonly load: (cluster: Cluster) => { readonly requests: number; readonly retries: number };
  /** Forgets clusters that are not there any more. */
  readonly keepOnly: (clusters: ReadonlyMap<string, Cluster>) => void;
}

/** @param random from 0 up to 1 */
export function createBalancer(random: () => number = Math.random): Balancer {
  const states = new Map<string, ClusterState>();
  const stateOf = (cluster: Cluster): ClusterState => {
    let state = states.get(cluster.name);
    if (state === undefined) {
      state = new ClusterState();
      states.set(cluster.name, state);
    }
    state.use(cluster);
    return state;
  };
  return {
    pick: (cluster, options) => pickAnother(stateOf(cluster), cluster, options, random),
    begin: (cluster, endpoint) => stateOf(cluster).begin(endpoint),
    beginRequest: (cluster) => {
      const state = stateOf(cluster);
      state.requests += 1;
      return once(() => {
        state.requests -= 1;
      });
    },
    beginRetry: (cluster) => {
      const state = stateOf(cluster);
      state.retries += 1;
      return once(() => {
        state.retries -= 1;
      });
    },
    load: (cluster) => stateOf(cluster),
    keepOnly: (clusters) => {
      for (const name of states.keys()) if (!clusters.has(name)) states.delete(name);
    },
  };
}

class ClusterState {
  /** Requests under way, those that wait to be tried again included, and retries among them. */
  requests = 0;
  retries = 0;
  healthy: readonly Endpoint[] = [];
  hasWeights = false;
  readonly #active = new Map<string, number>();
  #cluster: Cluster | undefined;
  #ring: HashRing | undefined;
  #next = 0;
  /** Of weighted round robin: what each is owed. */
  #credits = new Map<string, number>();

  use(cluster: Cluster): void {
    if (this.#cluster === cluster) return;
    this.#cluster = cluster;
    this.healthy = cluster.endpoints.filter(({ health }) => health === 'healthy');
    this.hasWeights = this.healthy.some(({ weight }) => weight !== this.healthy[0]?.weight);
    this.#ring = undefined;
    const keys = new Set(this.healthy.map(keyOfEndpoint));
    for (const key of this.#credits.keys()) if (!keys.has(key)) this.#credits.delete(key);
  }

  active(endpoint: Endpoint): number {
    return this.#active.get(keyOfEndpoint(endpoint)) ?? 0;
  }

  begin(endpoint: Endpoint): () => void {
    const key = keyOfEndpoint(endpoint);
    this.#active.set(key, (this.#active.get(key) ?? 0) + 1);
    return once(() => {
      const left = (this.#active.get(key) ?? 1) - 1;
      if (left === 0) this.#active.delete(key);
      else this.#active.set(key, left);
    });
  }

  ring(): HashRing {
    this.#ring ??= createHashRing(this.healthy);
    return this.#ring;
  }

  nextInTurn(): Endpoint | undefined {
    if (!this.hasWeights) return this.healthy[this.#next++ % this.healthy.length];
    let total = 0;
    let best: Endpoint | undefined;
    let most = Number.NEGATIVE_INFINITY;
    for (const endpoint of this.healthy) {
      const weight = weightOf(endpoint);
      const key = keyOfEndpoint(endpoint);
      const credit = (this.#credits.get(key) ?? 0) + weight;
      this.#credits.set(key, credit);
      total += weight;
      if (credit > most) [best, most] = [endpoint, credit];
    }
    if (best !== undefined) this.#credits.set(keyOfEndpoint(best), most - total);
    return best;
  }
}

function pickAnother(
  state: ClusterState,
  cluster: Cluster,
  options: PickOptions,
  random: () => number,
): Endpoint | undefined {
  const isNew = (endpoint: Endpoint): boolean => !options.exclude.has(keyOfEndpoint(endpoint));
  if (state.healthy.length <= 1) return state.healthy[0];
  if (cluster.balancing === 'ring-hash') {
    const key = options.hashKey ?? String(random());
    return state.ring().pick(key, isNew) ?? state.ring().pick(key, () => true);
  }
  const isRetry = options.exclude.size > 0 && state.healthy.some(isNew);
  if (cluster.balancing === 'least-request')
    return leastOfTwo(state, isRetry ? state.healthy.filter(isNew) : state.healthy, random);
  for (let picked = state.nextInTurn(); ; picked = state.nextInTurn())
    if (!isRetry || picked === undefined || isNew(picked)) return picked;
}

/** Two at random; the one that has fewer requests, for its weight. */
function leastOfTwo(
  state: ClusterState,
  endpoints: readonly Endpoint[],
  random: () => number,
): Endpoint | undefined {
  const any = (): Endpoint | undefined => anyOf(endpoints, state.hasWeights, random);
  const [a, b] = [any(), any()];
  if (a === undefined || b === undefined) return a ?? b;
  const load = (endpoint: Endpoint): number => (state.active(endpoint) + 1) / weightOf(endpoint);
  return load(b) < load(a) ? b : a;
}

function anyOf(
  endpoints: readonly Endpoint[],
  hasWeights: boolean,
  random: () => number,
): Endpoint | undefined {
  if (!hasWeights) return endpoints[Math.floor(random() * endpoints.length)];
  let left = random() * endpoints.reduce((sum, endpoint) => sum + weightOf(endpoint), 0);
  return endpoints.find((endpoint) => {
    left -= weightOf(endpoint);
    return left < 0;
  });
}

function weightOf(endpoint: Endpoint): number {
  return Math.max(1, endpoint.weight);
}

function once(act: () => void): () => void {
  let isDone = false;
  return () => {
    if (isDone) return;
    isDone = true;
    act();
  };
}
