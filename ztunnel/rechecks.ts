import { AUTHORIZATION_TYPE, type ResourceUpdate, resourceName } from '#api/resource.ts';
import { type Connections, denial } from './connections.ts';

/** Changes that come together are looked at together. */
const GATHER_MS = 5;
/** Connections that are looked at before bytes get their turn again. */
const SLICE = 1_000;

/** Looks at live connections again when what they were let in by has changed, and cuts those that are denied now. */
export class Rechecks {
  readonly #connections: Connections;
  /** Workloads that have changed; all, when a policy has. */
  #changed: Set<string> | 'all' = new Set();
  #timer: NodeJS.Timeout | undefined;

  constructor(connections: Connections) {
    this.#connections = connections;
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
    const look = (from: number): void => {
      for (const connection of concerned.slice(from, from + SLICE)) {
        const verdict = connection.isOver ? undefined : connection.opening.permission?.verdict();
        if (verdict?.kind === 'deny') connection.cut(denial(verdict));
      }
      if (from + SLICE < concerned.length) setImmediate(() => look(from + SLICE));
    };
    look(0);
  }
}
