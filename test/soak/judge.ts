import { leastOfWindows, type Point, type Slope, slopeOf } from './slope.ts';

/** One measured value of one process, or of the kernel. */
export interface Sample {
  /** Minutes since the start. */
  readonly at: number;
  /** `ztunnel-n1`, `control-plane`, `up`, … and `kernel`. */
  readonly role: string;
  /** 0 for the kernel. */
  readonly pid: number;
  readonly measure: Measure;
  readonly value: number;
}

export type Measure =
  | 'rss'
  | 'heap'
  | 'external'
  | 'descriptors'
  | 'threads'
  | 'handles'
  | 'connections'
  | 'map entries'
  | 'nft lines'
  | 'namespaces'
  | 'cgroups'
  | 'bpf objects'
  | 'tracked connections'
  | 'sockets';

export interface Tolerance {
  readonly unit: string;
  /** Growth in a minute that is taken for none. */
  readonly perMinute: number;
  /** Growth over the whole of what is judged that is taken for none. */
  readonly inAll: number;
}

/**
 * What is measured, and how fast it may grow. What is held (`heap`, `external`, after a collection) is looked at closely. Resident memory is not:
 * an allocator keeps what a moment of congestion took, so that it goes up in steps, and comes down late. The rest is counted, and none of
 * it may grow with time at all: less than one in ten minutes is within what a steady load comes and goes by.
 */
export const TOLERANCES: Readonly<Record<Measure, Tolerance>> = {
  rss: { unit: 'MiB', perMinute: 1, inAll: 64 },
  heap: { unit: 'MiB', perMinute: 0.1, inAll: 6 },
  external: { unit: 'MiB', perMinute: 0.2, inAll: 8 },
  descriptors: { unit: '', perMinute: 0.1, inAll: 4 },
  threads: { unit: '', perMinute: 0.05, inAll: 2 },
  handles: { unit: '', perMinute: 0.1, inAll: 4 },
  connections: { unit: '', perMinute: 0.1, inAll: 4 },
  'map entries': { unit: '', perMinute: 0.1, inAll: 8 },
  'nft lines': { unit: '', perMinute: 0.1, inAll: 4 },
  namespaces: { unit: '', perMinute: 0.05, inAll: 1 },
  cgroups: { unit: '', perMinute: 0.05, inAll: 1 },
  'bpf objects': { unit: '', perMinute: 0.1, inAll: 4 },
  'tracked connections': { unit: '', perMinute: 0.5, inAll: 50 },
  sockets: { unit: '', perMinute: 0.2, inAll: 20 },
};

/** What was found of one measure of one role. */
export interface Verdict {
  readonly role: string;
  readonly measure: Measure;
  readonly slope: Slope;
  readonly isOk: boolean;
}

export interface JudgeOptions {
  /** Of a process's life that do not count: code is compiled, pools and caches fill. */
  readonly warmUpMinutes: number;
  readonly windowMinutes: number;
}

/** How long a run has to be, so that slopes mean something. */
export const SHORTEST_MINUTES = 20;

/** A run's slopes. Processes that did not live longer than the warm-up say nothing. */
export function judge(samples: readonly Sample[], options: JudgeOptions): readonly Verdict[] {
  const groups = groupBy(samples, ({ role, measure }) => `${role}\n${measure}`);
  return groups.flatMap((group) => {
    const [first] = group;
    const slope = slopeOf(seriesOf(group, options));
    if (first === undefined || slope === undefined) return [];
    const { role, measure } = first;
    return [{ role, measure, slope, isOk: isTolerated(slope, TOLERANCES[measure]) }];
  });
}

/** It fails where it grows for sure, faster than tolerated, and by more than is tolerated in all. */
function isTolerated({ perMinute, atLeast, minutes }: Slope, tolerance: Tolerance): boolean {
  return atLeast <= tolerance.perMinute || perMinute * minutes <= tolerance.inAll;
}

/** One series for each process, after its warm-up. */
function seriesOf(group: readonly Sample[], options: JudgeOptions): readonly (readonly Point[])[] {
  return groupBy(group, ({ pid }) => `${pid}`).map((life) => {
    const from = (life[0]?.at ?? 0) + options.warmUpMinutes;
    return leastOfWindows(
      life.filter(({ at }) => at >= from),
      options.windowMinutes,
    );
  });
}

function groupBy<T>(all: readonly T[], key: (one: T) => string): readonly (readonly T[])[] {
  const groups = new Map<string, T[]>();
  for (const one of all) {
    const group = groups.get(key(one)) ?? [];
    group.push(one);
    groups.set(key(one), group);
  }
  return [...groups.values()];
}
