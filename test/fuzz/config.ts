/** How long fuzzers run. */
export interface FuzzConfig {
  /** For each property; undefined: so few cases that all of them are done in seconds. */
  readonly seconds: number | undefined;
  /** What cases are made from: equal seeds, equal cases. */
  readonly seed: number;
}

/** `npm test` makes the same cases each time, so that it never fails by chance. */
const SEED = 20_26;

/** From the environment that `npm run fuzz` sets. */
export function fuzzConfig(env: Readonly<Record<string, string | undefined>> = process.env): FuzzConfig {
  const seconds = Number(env['TULLE_FUZZ_SECONDS'] ?? '');
  const seed = Number(env['TULLE_FUZZ_SEED'] ?? '');
  return {
    seconds: seconds > 0 ? seconds : undefined,
    seed: Number.isSafeInteger(seed) && seed !== 0 ? seed : SEED,
  };
}
