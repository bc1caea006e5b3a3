import type { Logger } from 'pino';
import { debounce } from './debounce.ts';
import { type MeshState, type MeshStores, nextMeshState } from './mesh-state.ts';
import type { Problem } from './source/objects.ts';
import { mergeObjectSets, type Source } from './source/source.ts';

const QUIET_MS = 100;
const CAP_MS = 1000;
const RETRY_MS = 1000;
const LONGEST_RETRY_MS = 30_000;
/** What a timer can wait for. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Follows the sources, and keeps what is in force. Disposing of it stops following. */
export interface MeshLoop extends AsyncDisposable {
  readonly state: () => MeshState;
  /** What keeps the newest objects from being in force; none while they are. */
  readonly problems: () => readonly Problem[];
}

export interface MeshLoopOptions {
  readonly files: Source;
  readonly local: Source;
  readonly stores: MeshStores;
  /** What is in force at the start. */
  readonly first: MeshState;
  readonly trustDomain: string;
  /** Told of every state but the first, also if nothing that is served changed. */
  readonly onState: (state: MeshState) => void;
  readonly logger: Logger;
}

/**
 * Derives anew when a source changes: after 100 ms of quiet, at the latest after a second; and when a fault ends. When that
 * fails, the last state stays in force, is said to be a problem, and it is tried again.
 */
export function followSources(options: MeshLoopOptions): MeshLoop {
  const { files, local, stores, trustDomain, logger } = options;
  const stop = new AbortController();
  let state = options.first;
  let problems: readonly Problem[] = [];
  let retry: NodeJS.Timeout | undefined;
  let retryMs = RETRY_MS;
  let expiry: NodeJS.Timeout | undefined;

  const derive = (): void => {
    clearTimeout(retry);
    try {
      const objects = mergeObjectSets(files.current(), local.current());
      state = nextMeshState(objects, { ...stores, previous: state, trustDomain, nowMs: Date.now() });
      options.onState(state);
      awaitExpiry();
      problems = [];
      retryMs = RETRY_MS;
    } catch (error) {
      const problem = stale(error);
      if (problems[0]?.message !== problem.message) logger.error({ err: error }, 'configuration not applied');
      problems = [problem];
      retry = setTimeout(due.touch, retryMs);
      retryMs = Math.min(retryMs * 2, LONGEST_RETRY_MS);
    }
  };
  const awaitExpiry = (): void => {
    clearTimeout(expiry);
    const { nextExpiryMs } = state.snapshot.faults;
    if (nextExpiryMs === undefined) return;
    expiry = setTimeout(due.touch, Math.min(Math.max(0, nextExpiryMs - Date.now()), LONGEST_TIMER_MS));
  };
  const due = debounce({ quietMs: QUIET_MS, capMs: CAP_MS, action: derive });
  const follow = async (source: Source): Promise<void> => {
    while (!stop.signal.aborted) {
      try {
        for await (const _ of source.changes(stop.signal)) due.touch();
        return;
      } catch (error) {
        logger.error({ err: error }, 'source failed');
        problems = [stale(error)];
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  };
  const following = [follow(files), follow(local)];
  due.touch(); // What changed since the first state was derived.
  return {
    state: () => state,
    problems: () => problems,
    [Symbol.asyncDispose]: async () => {
      stop.abort();
      clearTimeout(retry);
      clearTimeout(expiry);
      await Promise.all([...following, due[Symbol.asyncDispose]()]);
    },
  };
}

function stale(error: unknown): Problem {
  return {
    object: 'control plane',
    position: { file: 'control-plane', line: 0, column: 0 },
    path: '',
    message: error instanceof Error ? error.message : String(error),
    severity: 'error',
    effect: 'the last configuration stays in force',
  };
}
