/** What has to be before a ztunnel is ready, and whether it is. */
export interface ReadinessFacts {
  /** Both types of the workload API have been answered. */
  readonly tablesSynced: boolean;
  /** Who is revoked has been said, or has been waited for. */
  readonly revocationsKnown: boolean;
  readonly workersReady: boolean;
  /** The node agent is connected and has named its pods. */
  readonly podsKnown: boolean;
  /** Pods whose listeners could not be opened yet. */
  readonly podsPending: number;
  readonly draining: boolean;
}

/** What is still missing, by the names that a stock ztunnel has for it; none: ready. */
export function pendingTasks(facts: ReadinessFacts): readonly string[] {
  return [
    ...(facts.tablesSynced ? [] : ['state manager']),
    ...(facts.revocationsKnown ? [] : ['revocation list']),
    ...(facts.workersReady ? [] : ['proxy']),
    ...(facts.podsKnown && facts.podsPending === 0 ? [] : ['workload proxy manager']),
    ...(facts.draining ? ['draining'] : []),
  ];
}

/** Answer of `GET /healthz/ready`. */
export function readinessAnswer(facts: ReadinessFacts): {
  readonly status: 200 | 500;
  readonly text: string;
} {
  const pending = pendingTasks(facts);
  if (pending.length === 0) return { status: 200, text: 'ready\n' };
  return { status: 500, text: `not ready, pending: ${pending.join(', ')}\n` };
}
