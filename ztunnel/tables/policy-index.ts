import { type Authorization, policyKey } from '#api/policy.ts';

const NOWHERE = '';

/** Policies by key, and those of a namespace together with the mesh-wide ones. */
export class PolicyIndex {
  readonly #byKey = new Map<string, Authorization>();
  /** Keys of NAMESPACE policies by namespace; GLOBAL ones under the name that no namespace has. */
  readonly #scoped = new Map<string, Set<string>>();
  #applicable = new Map<string, readonly Authorization[]>();

  get(key: string): Authorization | undefined {
    return this.#byKey.get(key);
  }

  all(): Iterable<Authorization> {
    return this.#byKey.values();
  }

  /** By key, the namespace's own first; the same array until a policy with a scope changes. */
  ofNamespace(namespace: string): readonly Authorization[] {
    const known = this.#applicable.get(namespace);
    if (known !== undefined) return known;
    const own = namespace === NOWHERE ? [] : this.#inScope(namespace);
    const applicable = [...own, ...this.#inScope(NOWHERE)];
    this.#applicable.set(namespace, applicable);
    return applicable;
  }

  add(policy: Authorization): void {
    this.remove(policyKey(policy));
    this.#byKey.set(policyKey(policy), policy);
    const scope = scopeOf(policy);
    if (scope === undefined) return;
    this.#scoped.set(scope, (this.#scoped.get(scope) ?? new Set<string>()).add(policyKey(policy)));
    this.#applicable = new Map();
  }

  remove(key: string): void {
    const policy = this.#byKey.get(key);
    if (policy === undefined) return;
    this.#byKey.delete(key);
    const scope = scopeOf(policy);
    if (scope === undefined) return;
    const keys = this.#scoped.get(scope);
    keys?.delete(key);
    if (keys?.size === 0) this.#scoped.delete(scope);
    this.#applicable = new Map();
  }

  #inScope(scope: string): readonly Authorization[] {
    const keys = [...(this.#scoped.get(scope) ?? [])].sort();
    return keys.flatMap((key) => this.#byKey.get(key) ?? []);
  }
}

function scopeOf(policy: Authorization): string | undefined {
  switch (policy.scope) {
    case 'GLOBAL':
      return NOWHERE;
    case 'NAMESPACE':
      return policy.namespace === NOWHERE ? undefined : policy.namespace;
    case 'WORKLOAD_SELECTOR':
      return undefined;
  }
}
