import type { Workload } from '#api/workload.ts';

/** A pod whose workload may still have to come from the control plane. */
export interface AwaitedClient {
  /** Undefined: not known yet. */
  readonly now: () => Workload | undefined;
  /** Waits for it; undefined when it has not come in time. */
  readonly until: (timeoutMs: number) => Promise<Workload | undefined>;
}

/** Resolvers give a name server up after 5 s. What fails before, they tell the application as a failure. */
const WAIT_MS = 4_000;
/** Queries of one pod that wait. */
const MOST_WAITING = 256;

/** Who asks, as soon as it is known; undefined when that takes too long, or too many wait already. */
export function awaitClient(client: AwaitedClient): () => Promise<Workload | undefined> {
  let waiting = 0;
  return async () => {
    if (waiting >= MOST_WAITING) return undefined;
    waiting += 1;
    try {
      return await client.until(WAIT_MS);
    } finally {
      waiting -= 1;
    }
  };
}
