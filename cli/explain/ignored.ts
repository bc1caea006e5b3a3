import { policyKey } from '#api/policy.ts';
import type { Workload } from '#api/workload.ts';
import { missingPolicies, policiesOf } from '#ztunnel/policy/authorize.ts';
import { factsOf, type MeshFacts, type PolicyFacts } from './mesh-facts.ts';
import { objectOf, type VerdictSources } from './verdicts.ts';

/** Something that is written about a destination and does not count. */
export interface Ignored {
  /** `AuthorizationPolicy shop/p` */
  readonly policy: string;
  readonly position: string | null;
  /** Of the policy's rules, from 0; null: all of it. */
  readonly rule: number | null;
  readonly reason: string;
}

/**
 * What is written about a workload and does not decide who gets in: rules that do not do what they say, policies that are tried out,
 * and those that are named and have not come.
 */
export function ignoredFor(
  { served, tables }: VerdictSources,
  facts: MeshFacts,
  workload: Workload,
): readonly Ignored[] {
  const applying = new Set(policiesOf(tables, workload).map((policy) => objectOf(served, policyKey(policy))));
  const missing = missingPolicies(tables, workload).map((policy) => ({
    policy,
    position: null,
    rule: null,
    reason: 'the workload names it and it has not come: all callers are refused until it does',
  }));
  const written = facts.policies
    .filter((policy) => applying.has(policy.object) || isMeantFor(policy, workload, facts))
    .flatMap(ignoredOf);
  return [...missing, ...written];
}

function ignoredOf({ object, position, ineffective }: PolicyFacts): readonly Ignored[] {
  return ineffective.map(({ rule, reason }) => ({ policy: object, position, rule, reason }));
}

/** Nobody enforces it, and by its namespace and labels it is for this workload. */
function isMeantFor(
  { object, enforcedBy, selector }: PolicyFacts,
  workload: Workload,
  facts: MeshFacts,
): boolean {
  if (enforcedBy.length > 0 || !object.includes(` ${workload.namespace}/`)) return false;
  const labels = new Map(Object.entries(factsOf(facts, workload)?.labels ?? {}));
  return Object.entries(selector ?? {}).every(([key, value]) => labels.get(key) === value);
}
