import type { Authorization } from '#api/policy.ts';
import type {
  AuthorizationPolicyObject,
  BrokenPolicy,
  Position,
  Selector,
  StringMap,
} from '../source/objects.ts';
import { type ConvertedRule, canMatch, convertRule, type RuleFault } from './authorization-rules.ts';
import type { MeshSettings } from './settings.ts';
import { parseBoolean } from './waypoint-binding.ts';

/** A rule that does not do what it says, and what it does instead. */
export interface Ineffective {
  /** From 0, as it is written. */
  readonly rule: number;
  readonly reason: string;
}

/** What ztunnels get of an AuthorizationPolicy. */
export type Conversion =
  | {
      readonly kind: 'sent';
      readonly authorization: Authorization;
      readonly ruleOrigins: readonly Position[];
      readonly ineffective: readonly Ineffective[];
    }
  | { readonly kind: 'withheld'; readonly ineffective: readonly Ineffective[] }
  /** A value in it is wrong, so that it can not be told what it denies; `path` from its root. */
  | { readonly kind: 'broken'; readonly faults: readonly RuleFault[] };

const DRY_RUN = 'istio.io/dry-run';
/** Why a policy with targets is not sent to ztunnels. */
export const TARGETS = 'it has targetRefs: only a waypoint can enforce it, no ztunnel does';

/** Converts a policy to its form for ztunnels: {@link convertRule} rule by rule. */
export function convertAuthorizationPolicy(
  policy: AuthorizationPolicyObject,
  settings: MeshSettings,
): Conversion {
  const { metadata, spec } = policy;
  const everyRule = (reason: string): readonly Ineffective[] =>
    spec.rules.map((_, rule) => ({ rule, reason }));
  const dryRun = isDryRun(policy);
  if (dryRun && !settings.dryRunPolicies)
    return {
      kind: 'withheld',
      ineffective: everyRule(
        'dry run: not sent to ztunnels while tulle.dryRunPolicies of the mesh is not true',
      ),
    };
  if (spec.targetRefs.length > 0)
    return {
      kind: 'withheld',
      ineffective: everyRule(TARGETS),
    };
  if (spec.action === 'AUDIT' || spec.action === 'CUSTOM')
    return {
      kind: 'withheld',
      ineffective: everyRule(
        `ztunnels do not know the action ${spec.action}; a waypoint and targetRefs are needed`,
      ),
    };
  const rules = spec.rules.map((rule) => convertRule(rule, metadata.namespace));
  const faults = rules.flatMap((rule, index) =>
    rule.faults.map(({ path, message }) => ({ path: `spec.rules[${index}].${path}`, message })),
  );
  if (faults.length > 0) return { kind: 'broken', faults };
  const kept = rules.flatMap((rule, index) =>
    spec.action === 'ALLOW' && rule.unseen.length > 0 ? [] : [{ rule: rule.rule, index }],
  );
  return {
    kind: 'sent',
    authorization: {
      kind: 'authorization',
      name: metadata.name,
      namespace: metadata.namespace,
      scope: scopeOf(metadata.namespace, spec.selector, settings),
      action: spec.action,
      rules: kept.map(({ rule }) => rule),
      dryRun,
    },
    ruleOrigins: kept.map(({ index }) => policy.positionOf(`spec.rules[${index}]`)),
    ineffective: dryRun ? everyRule('dry run: logged, never enforced') : explainRules(spec.action, rules),
  };
}

/** Whether the policy is only to be tried out. */
export function isDryRun(policy: AuthorizationPolicyObject): boolean {
  return parseBoolean(policy.metadata.annotations.get(DRY_RUN) ?? '') ?? false;
}

/** What stands in the annotation for a dry run and is no truth value. */
export function badDryRun(policy: AuthorizationPolicyObject): string | undefined {
  const written = policy.metadata.annotations.get(DRY_RUN);
  return written && parseBoolean(written) === undefined ? written : undefined;
}

/** Path of that annotation. */
export const DRY_RUN_PATH: string = `metadata.annotations["${DRY_RUN}"]`;

/** What stands for a policy that could not be read: it denies all that it may select. */
export function denyAll(
  policy: Pick<BrokenPolicy, 'namespace' | 'selector'>,
  name: string,
  settings: MeshSettings,
): Authorization {
  return {
    kind: 'authorization',
    name,
    namespace: policy.namespace,
    scope: scopeOf(policy.namespace, policy.selector, settings),
    action: 'DENY',
    rules: [{ clauses: [] }],
    dryRun: false,
  };
}

/** Labels that a policy selects by; undefined when it selects all. */
export function selectorLabels(selector: Selector | undefined): StringMap | undefined {
  return selector !== undefined && selector.matchLabels.size > 0 ? selector.matchLabels : undefined;
}

function scopeOf(
  namespace: string,
  selector: Selector | undefined,
  settings: MeshSettings,
): Authorization['scope'] {
  if (selectorLabels(selector) !== undefined) return 'WORKLOAD_SELECTOR';
  return namespace === settings.rootNamespace ? 'GLOBAL' : 'NAMESPACE';
}

function explainRules(action: 'ALLOW' | 'DENY', rules: readonly ConvertedRule[]): readonly Ineffective[] {
  return rules.flatMap((rule, index) => {
    const reason = explainRule(action, rule);
    return reason === undefined ? [] : [{ rule: index, reason }];
  });
}

function explainRule(action: 'ALLOW' | 'DENY', { rule, unseen }: ConvertedRule): string | undefined {
  const cause = `ztunnels do not see ${unseen.join(', ')}`;
  if (unseen.length > 0 && action === 'ALLOW')
    return `${cause}: the rule allows nothing, more is denied than written`;
  if (unseen.length > 0 && canMatch(rule))
    return `${cause}: the rule denies without regard to it, more than written`;
  if (unseen.length > 0) return `${cause}: the rule denies without regard to it, more than written ${STOCK}`;
  if (canMatch(rule)) return undefined;
  if (action === 'ALLOW')
    return 'an empty source, operation or condition matches nothing: the rule allows nothing';
  return `an empty source, operation or condition matches everything ${STOCK}`;
}

/** What else there is to know of a DENY of which only empty matches are left: docs/decisions/0007-empty-matches.md. */
const STOCK = '(a stock ztunnel would deny nothing)';
