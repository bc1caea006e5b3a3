import { AUTHORIZATION_TYPE, type ResourceUpdate, resourceName } from '#api/resource.ts';
import type { Failure } from './connection-record.ts';
import { type Connections, denial, type LiveConnection } from './connections.ts';

/** Changes that come together are looked at together. */
const GATHER_MS = 5;
/** Connections that are looked at before bytes get their turn again. */
const SLICE = 1_000;
/** A pod that is released loses its identity first: by then it is known that its connections may end in peace. */
const SETTLE_MS = 200;

/** Looks at live connections again when what they were let in by has changed, and cuts those that are denied now. */
export class Rechecks {
  readonly #connections: Connections;
  /** Workloads that have changed; all, when a policy has. */
  #changed: Set<string> | 'all' = new Set();
  #timer: NodeJS.Timeout | undefined;
  #identityTimer: NodeJS.Timeout | undefined;

  constructor(connections: Connections) {
    this.#connections = connections;
  }

  /** An SVID has expired or been taken away: of those without a session that holds it, some may have to go. */
  noteLostIdentity(): void {
    this.#identityTimer ??= setTimeout(() => {
      this.#identityTimer = undefined;
      this.#look(this.#connections.inbound(), ({ opening }) => opening.permission?.lostIdentity?.());
    }, SETTLE_MS);
  }

  /** An update has been applied. */
  note({ type, updated, removed }: ResourceUpdate): void {
    if (type === AUTHORIZATION_TYPE) this.#changed = 'all';
    else if (this.#changed !== 'all') {
      for (const resource of updated)
        if (resource.kind === 'workload') this.#changed.add(resourceName(resource));
      for (const name of removed) this.#changed.add(name);
    }
    this.#timer ??= setTimeout(() => this.#run(), GATHER_MS);
  }

  #run(): void {
    const changed = this.#changed;
    this.#changed = new Set();
    this.#timer = undefined;
    const concerned = this.#connections.inbound().filter(({ opening }) => {
      return changed === 'all' || changed.has(opening.permission?.workloadUid ?? '');
    });
    this.#look(concerned, ({ opening }) => {
      const verdict = opening.permission?.verdict();
      return verdict?.kind === 'deny' ? denial(verdict) : undefined;
    });
  }

  #look(
    connections: readonly LiveConnection[],
    judge: (connection: LiveConnection) => Failure | undefined,
    from = 0,
  ): void {
    for (const connection of connections.slice(from, from + SLICE)) {
      const failure = connection.isOver ? undefined : judge(connection);
      if (failure !== undefined) connection.cut(failure);
    }
    if (from + SLICE < connections.length) setImmediate(() => this.#look(connections, judge, from + SLICE));
  }
}
