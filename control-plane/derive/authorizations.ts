import type { Authorization, Rule } from '#api/policy.ts';
import {
  type AuthorizationPolicyObject,
  type BrokenPolicy,
  objectKey,
  type Position,
  type Selector,
  type StringMap,
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

/** What ztunnels, or waypoints, get of an AuthorizationPolicy. */
export type Conversion =
  | {
      readonly kind: 'sent';
      readonly authorization: Authorization;
      readonly ruleOrigins: readonly Position[];
      readonly ineffective: readonly Ineffective[];
    }
  | {
      readonly kind: 'withheld';
      readonly ineffective: readonly Ineffective[];
      /** Why what it is aimed at has to refuse everything: what it asks for cannot be done there. */
      readonly refuse?: string;
    }
  /** A value in it is wrong, so that it can not be told what it denies; `path` from its root. */
  | { readonly kind: 'broken'; readonly faults: readonly RuleFault[] };

const DRY_RUN = 'istio.io/dry-run';
/** Who is to check a policy: one with targets is for waypoints, and for no ztunnel. */
type Enforcer = 'ztunnel' | 'waypoint';

/** Converts a policy to its form for ztunnels, or for waypoints if it has targets: {@link convertRule} rule by rule. */
export function convertAuthorizationPolicy(
  policy: AuthorizationPolicyObject,
  settings: MeshSettings,
): Conversion {
  const { metadata, spec } = policy;
  const everyRule = (reason: string): readonly Ineffective[] =>
    spec.rules.map((_, rule) => ({ rule, reason }));
  const dryRun = isDryRun(policy);
  const enforcer: Enforcer = spec.targetRefs.length > 0 ? 'waypoint' : 'ztunnel';
  if (dryRun && (enforcer === 'waypoint' || !settings.dryRunPolicies))
    return { kind: 'withheld', ineffective: everyRule(DRY_RUN_REASONS[enforcer]) };
  if (spec.action === 'AUDIT' || spec.action === 'CUSTOM') {
    const ineffective = everyRule(actionReason(enforcer, spec.action));
    const refuse = `${objectKey(policy)}: ${actionReason(enforcer, spec.action)}`;
    const fails = enforcer === 'waypoint' && spec.action === 'CUSTOM';
    return { kind: 'withheld', ineffective, ...(fails && { refuse }) };
  }
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
      scope: enforcer === 'waypoint' ? NAMED_ONLY : scopeOf(metadata.namespace, spec.selector, settings),
      action: spec.action,
      rules: kept.map(({ rule }) => rule),
      dryRun,
    },
    ruleOrigins: kept.map(({ index }) => policy.positionOf(`spec.rules[${index}]`)),
    ineffective: dryRun
      ? everyRule('dry run: logged, never enforced')
      : explainRules(spec.action, rules, enforcer),
  };
}

/** Holds for those who name it, and nobody else. */
const NAMED_ONLY = 'WORKLOAD_SELECTOR';
const DRY_RUN_REASONS: Readonly<Record<Enforcer, string>> = {
  ztunnel: 'dry run: not sent to ztunnels while tulle.dryRunPolicies of the mesh is not true',
  waypoint: 'dry run: waypoints try no policies out',
};

function actionReason(enforcer: Enforcer, action: 'AUDIT' | 'CUSTOM'): string {
  if (enforcer === 'ztunnel')
    return `ztunnels do not know the action ${action}; a waypoint and targetRefs are needed`;
  return action === 'AUDIT'
    ? 'waypoints do not know the action AUDIT'
    : 'waypoints do not know the action CUSTOM: everything that it is aimed at is refused';
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
  policy: Pick<BrokenPolicy, 'namespace' | 'selector' | 'targetRefs'>,
  name: string,
  settings: MeshSettings,
): Authorization {
  const isAimed = policy.targetRefs !== undefined && policy.targetRefs.length > 0;
  return {
    kind: 'authorization',
    name,
    namespace: policy.namespace,
    scope: isAimed ? NAMED_ONLY : scopeOf(policy.namespace, policy.selector, settings),
    action: 'DENY',
    rules: [{ clauses: [] }],
    dryRun: false,
  };
}

/** A policy of ours that denies what its rules match, to the workloads that name it. */
export function denySelected(name: string, namespace: string, rules: readonly Rule[]): Authorization {
  return {
    kind: 'authorization',
    name,
    namespace,
    scope: 'WORKLOAD_SELECTOR',
    action: 'DENY',
    rules,
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

function explainRules(
  action: 'ALLOW' | 'DENY',
  rules: readonly ConvertedRule[],
  enforcer: Enforcer,
): readonly Ineffective[] {
  return rules.flatMap((rule, index) => {
    const reason = explainRule(action, rule, enforcer);
    return reason === undefined ? [] : [{ rule: index, reason }];
  });
}

function explainRule(
  action: 'ALLOW' | 'DENY',
  { rule, unseen }: ConvertedRule,
  enforcer: Enforcer,
): string | undefined {
  const stock = enforcer === 'ztunnel' ? ` ${STOCK}` : '';
  const cause =
    enforcer === 'ztunnel'
      ? `ztunnels do not see ${unseen.join(', ')}`
      : `waypoints do not look at ${unseen.join(', ')} yet`;
  if (unseen.length > 0 && action === 'ALLOW')
    return `${cause}: the rule allows nothing, more is denied than written`;
  if (unseen.length > 0 && canMatch(rule))
    return `${cause}: the rule denies without regard to it, more than written`;
  if (unseen.length > 0) return `${cause}: the rule denies without regard to it, more than written${stock}`;
  if (canMatch(rule)) return undefined;
  if (action === 'ALLOW')
    return 'an empty source, operation or condition matches nothing: the rule allows nothing';
  return `an empty source, operation or condition matches everything${stock}`;
}

/** What else there is to know of a DENY of which only empty matches are left: docs/decisions/0007-empty-matches.md. */
const STOCK = '(a stock ztunnel would deny nothing)';
