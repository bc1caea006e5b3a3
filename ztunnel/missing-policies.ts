import type { Logger } from 'pino';
import type { LocalIdentities } from './local-identities.ts';
import { missingPolicies } from './policy/authorize.ts';
import type { Tables } from './tables/tables.ts';

/** A local workload and the policies that it names and nobody has sent. */
export interface MissingPolicies {
  readonly workload: string;
  readonly policies: readonly string[];
}

/** How long a policy may be on its way before it is missed: connections wait for it as long. */
const PATIENCE_MS = 2000;

/** Finds policies that are named and absent, and tells the log of each once. */
export class MissingPolicyReport {
  readonly #tables: Tables;
  readonly #identities: LocalIdentities;
  readonly #effect: 'deny' | 'allow';
  readonly #logger: Logger;
  #told = new Set<string>();
  #timer: NodeJS.Timeout | undefined;

  /** @param effect what connections to such a workload meet. */
  constructor(tables: Tables, identities: LocalIdentities, effect: 'deny' | 'allow', logger: Logger) {
    this.#tables = tables;
    this.#identities = identities;
    this.#effect = effect;
    this.#logger = logger;
  }

  /** The tables have changed: looks again when things have settled. */
  afterUpdate(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#tell();
    }, PATIENCE_MS).unref();
  }

  list(): readonly MissingPolicies[] {
    return [...this.#identities.workloads()]
      .map((workload) => ({ workload: workload.uid, policies: missingPolicies(this.#tables, workload) }))
      .filter(({ policies }) => policies.length > 0);
  }

  count(): number {
    return new Set(this.list().flatMap(({ policies }) => policies)).size;
  }

  #tell(): void {
    const found = this.list().flatMap(({ workload, policies }) =>
      policies.map((policy) => ({ key: `${workload} ${policy}`, workload, policy })),
    );
    for (const { key, workload, policy } of found) {
      if (this.#told.has(key)) continue;
      this.#logger.warn({ workload, policy, effect: this.#effect }, 'a policy is named that was never sent');
    }
    this.#told = new Set(found.map(({ key }) => key));
  }
}
