/** A measured value; `at` in minutes since the start. */
export interface Point {
  readonly at: number;
  readonly value: number;
}

/** How fast something grows. */
export interface Slope {
  /** Theil-Sen: the median of the slopes between all pairs of points of one series. */
  readonly perMinute: number;
  /** It grows at least that fast, with 95% confidence (Sen's interval, Kendall's variance); -Infinity where there is too little to say so. */
  readonly atLeast: number;
  /** How many minutes the series are long, in all. */
  readonly minutes: number;
}

/** One sided, 95%. */
const NORMAL_95 = 1.645;

/**
 * The slope that several series have in common, each of one process: pairs are made within a series alone, so that a process that is
 * replaced by another, which has less, hides nothing. Undefined without a pair.
 */
export function slopeOf(series: readonly (readonly Point[])[]): Slope | undefined {
  const slopes = series.flatMap(slopesWithin).sort((a, b) => a - b);
  if (slopes.length === 0) return undefined;
  const variance = series.reduce((sum, { length: n }) => sum + (n * (n - 1) * (2 * n + 5)) / 18, 0);
  const rank = Math.floor((slopes.length - NORMAL_95 * Math.sqrt(variance)) / 2);
  return {
    perMinute: medianOfSorted(slopes),
    atLeast: rank < 0 ? Number.NEGATIVE_INFINITY : (slopes[rank] ?? Number.NEGATIVE_INFINITY),
    minutes: series.reduce((sum, points) => sum + ((points.at(-1)?.at ?? 0) - (points[0]?.at ?? 0)), 0),
  };
}

/** The least value of each window: what garbage collectors and bursts add on top is left out. */
export function leastOfWindows(points: readonly Point[], windowMinutes: number): readonly Point[] {
  const windows = new Map<number, number>();
  for (const { at, value } of points) {
    const window = Math.floor(at / windowMinutes);
    windows.set(window, Math.min(windows.get(window) ?? Number.POSITIVE_INFINITY, value));
  }
  return [...windows]
    .sort(([a], [b]) => a - b)
    .map(([window, value]) => ({ at: (window + 0.5) * windowMinutes, value }));
}

function slopesWithin(points: readonly Point[]): readonly number[] {
  return points.flatMap((later, index) =>
    points.slice(0, index).map((earlier) => (later.value - earlier.value) / (later.at - earlier.at)),
  );
}

function medianOfSorted(sorted: readonly number[]): number {
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? 0)) / 2;
}
