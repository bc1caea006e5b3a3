import type { Origin, WeightedBackend } from '../model.ts';

/** Whose weights they are. */
export interface WeightOwner {
  /** Name of the RouteTable, or of the Listener. */
  readonly table: string;
  /** Name of the route. */
  readonly name: string;
  readonly origin: Origin;
}

/** A turn of backends: for each, by how much it is behind what it should have had. */
interface Turn {
  readonly clusters: string;
  readonly lags: number[];
  /** Sum of the weights at the last pick, in which the lags count. */
  sum: number;
}

/** Most steps of the start at a random place. */
const MAX_OFFSET = 1000;

/**
 * Divides requests over backends by weight, exactly and not by chance: smooth weighted round robin, so that of any run of picks
 * each backend has its share, give or take one. Where a turn starts is random, so that many processes do not pick alike.
 *
 * A turn belongs to a rule of a route (all its matches share it), or to a route that no object has. It goes on when only the
 * weights change, and starts afresh with other backends.
 */
export class SmoothWeights {
  readonly #draw: () => number;
  readonly #turnsByKey: Map<string, Turn> = new Map();
  readonly #turns: WeakMap<readonly WeightedBackend[], Turn> = new WeakMap();

  /** @param draw random, from 0 up to 1 */
  constructor(draw: () => number) {
    this.#draw = draw;
  }

  /** The next backend; undefined when no weight is above 0. */
  pick(backends: readonly WeightedBackend[], owner: WeightOwner): WeightedBackend | undefined {
    const [first] = backends;
    if (backends.length === 1) return first !== undefined && first.weight > 0 ? first : undefined;
    return step(this.#turns.get(backends) ?? this.#turnOf(keyOf(owner), backends), backends);
  }

  /** Forgets the turns of all but these: of routes that are gone. */
  retain(owners: Iterable<WeightOwner>): void {
    const keys = new Set([...owners].map(keyOf));
    for (const key of this.#turnsByKey.keys()) if (!keys.has(key)) this.#turnsByKey.delete(key);
  }

  #turnOf(key: string, backends: readonly WeightedBackend[]): Turn {
    const clusters = backends.map((backend) => backend.cluster).join('\n');
    let turn = this.#turnsByKey.get(key);
    if (turn?.clusters !== clusters) {
      turn = { clusters, lags: backends.map(() => 0), sum: 0 };
      const offset = Math.floor(this.#draw() * Math.min(periodOf(backends), MAX_OFFSET));
      for (let done = 0; done < offset; done += 1) step(turn, backends);
      this.#turnsByKey.set(key, turn);
    }
    this.#turns.set(backends, turn);
    return turn;
  }
}

function keyOf({ table, name, origin }: WeightOwner): string {
  return origin.object === '' ? `${table}\n\n${name}` : `${table}\n${origin.object}\n${origin.rule}`;
}

function step(turn: Turn, backends: readonly WeightedBackend[]): WeightedBackend | undefined {
  let sum = 0;
  for (const { weight } of backends) sum += weight;
  if (sum === 0) return undefined;
  if (turn.sum !== sum) rescale(turn, backends, sum);
  const { lags } = turn;
  let chosen = -1;
  for (let place = 0; place < backends.length; place += 1) {
    const weight = backends[place]?.weight ?? 0;
    if (weight === 0) continue;
    const lag = (lags[place] ?? 0) + weight;
    lags[place] = lag;
    if (chosen < 0 || lag > (lags[chosen] ?? 0)) chosen = place;
  }
  lags[chosen] = (lags[chosen] ?? 0) - sum;
  return backends[chosen];
}

/** Lags count in shares of a request: with another sum they are others. Who has no weight is owed nothing. */
function rescale(turn: Turn, backends: readonly WeightedBackend[], sum: number): void {
  const factor = turn.sum === 0 ? 0 : sum / turn.sum;
  let owed = 0;
  let sharing = 0;
  for (const [place, { weight }] of backends.entries()) {
    const lag = weight === 0 ? 0 : (turn.lags[place] ?? 0) * factor;
    turn.lags[place] = lag;
    owed += lag;
    if (weight > 0) sharing += 1;
  }
  for (const [place, { weight }] of backends.entries())
    if (weight > 0) turn.lags[place] = (turn.lags[place] ?? 0) - owed / sharing;
  turn.sum = sum;
}

/** Picks after which a turn repeats itself. */
function periodOf(backends: readonly WeightedBackend[]): number {
  let divisor = 0;
  let sum = 0;
  for (const { weight } of backends) {
    sum += weight;
    divisor = greatestDivisor(divisor, weight);
  }
  return divisor === 0 ? 0 : sum / divisor;
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}
