import { type Authorization, policyKey } from '#api/policy.ts';
import {
  type AuthorizationPolicyObject,
  type BrokenPolicy,
  type MeshObject,
  type ObjectKey,
  objectKey,
  type PeerAuthenticationObject,
  type Position,
  type StringMap,
  type TargetRef,
} from '../source/objects.ts';
import {
  badDryRun,
  convertAuthorizationPolicy,
  DRY_RUN_PATH,
  denyAll,
  type Ineffective,
  isDryRun,
  selectorLabels,
} from './authorizations.ts';
import type { Context, Derived } from './context.ts';
import {
  convertedName,
  convertPeerAuthentication,
  decideMtls,
  explainPorts,
  type MtlsTable,
  STATIC_STRICT,
  staticStrict,
  tabulateMtls,
} from './peer-authentications.ts';
import { problemAt } from './problems.ts';
import { indexSelectors, type SelectorIndex } from './selectors.ts';

/** What became of a policy, before it is known which nodes enforce it. */
export interface PolicyOutcome {
  readonly object: ObjectKey;
  readonly position: Position;
  /** Name of the Authorization that stands for it; absent where nobody gets one. */
  readonly resource?: string;
  /** Whether it could not be read, so that it denies all that it may select. */
  readonly broken: boolean;
  readonly dryRun: boolean;
  readonly ineffective: readonly Ineffective[];
  /** Labels that it selects by, if it does. */
  readonly selector?: StringMap;
  /** What it is aimed at instead, if it is for waypoints. */
  readonly aim?: PolicyAim;
  /** The object; absent where it could not be read. */
  readonly source?: MeshObject;
}

/** Where a policy for waypoints holds. */
export interface PolicyAim {
  readonly namespace: string;
  /** Never empty. */
  readonly targetRefs: readonly TargetRef[];
  /** Why everything there is refused. */
  readonly refuse?: string;
}

/** Policies as ztunnels and waypoints get them, and what became of each object. */
export interface PolicySet {
  readonly authorizations: readonly Derived<Authorization>[];
  readonly outcomes: readonly PolicyOutcome[];
  /** Names that a workload of these labels has to list. */
  readonly policiesOf: (namespace: string, labels: StringMap) => readonly string[];
  /** Whether a workload of these labels refuses callers without an identity. */
  readonly modeOf: (namespace: string, labels: StringMap) => 'STRICT' | 'PERMISSIVE';
  /** Objects whose selector has selected something in `policiesOf` so far. */
  readonly selected: ReadonlySet<ObjectKey>;
  /** PeerAuthentications that an older one has kept from holding for a workload so far, and that one. */
  readonly outdone: ReadonlyMap<ObjectKey, ObjectKey>;
}

/** Derives all policies. */
export function derivePolicies(context: Context, broken: readonly BrokenPolicy[]): PolicySet {
  const mtls = tabulateMtls(context.inventory.peerAuthentications, context.settings.rootNamespace);
  const read = [
    ...context.inventory.authorizationPolicies.map((policy) => fromPolicy(context, policy)),
    ...context.inventory.peerAuthentications.map((policy) => fromPeerAuthentication(mtls, policy)),
  ];
  const names = nameBroken(read, broken);
  const results = [
    ...read,
    ...broken.map((policy, index) => fromBroken(context, policy, names[index] ?? policy.name)),
  ];
  const authorizations = results.flatMap(({ derived }) => derived ?? []);
  const selected = new Set<ObjectKey>();
  const outdone = new Map<ObjectKey, ObjectKey>();
  const indexes = indexBySelector(results.map(({ outcome, namespace }) => ({ outcome, namespace })));
  const { rootNamespace } = context.settings;
  const policiesOf = (namespace: string, labels: StringMap): readonly string[] => {
    const names: string[] = [];
    for (const scope of new Set([rootNamespace, namespace]))
      for (const { object, resource, direct } of indexes.get(scope)?.find(labels) ?? []) {
        selected.add(object);
        if (direct && resource !== undefined) names.push(resource);
      }
    const outcome = decideMtls(mtls, namespace, labels);
    const [first, ...others] = outcome.selecting;
    if (first !== undefined) for (const other of others) outdone.set(objectKey(other), objectKey(first));
    return [...names.sort(), ...outcome.policies];
  };
  return {
    authorizations: [...authorizations, ...strictAuthorization(context, mtls)],
    outcomes: results.map(({ outcome }) => outcome),
    policiesOf,
    modeOf: (namespace, labels) => decideMtls(mtls, namespace, labels).mode,
    selected,
    outdone,
  };
}

interface Result {
  readonly namespace: string;
  readonly outcome: PolicyOutcome & { readonly direct: boolean };
  readonly derived?: Derived<Authorization>;
}

function fromPolicy(context: Context, policy: AuthorizationPolicyObject): Result {
  const { settings } = context;
  const { namespace, name } = policy.metadata;
  const selector = selectorLabels(policy.spec.selector);
  const origin = { object: objectKey(policy), position: policy.position };
  const shared = {
    ...origin,
    source: policy,
    dryRun: isDryRun(policy),
    direct: true,
    ...(selector && { selector }),
    ...aimOf(namespace, policy.spec.targetRefs),
  };
  reportDryRun(context, policy);
  const conversion = convertAuthorizationPolicy(policy, settings);
  switch (conversion.kind) {
    case 'withheld': {
      const { ineffective, refuse } = conversion;
      const aim = shared.aim && { aim: { ...shared.aim, ...(refuse !== undefined && { refuse }) } };
      return { namespace, outcome: { ...shared, ...aim, broken: false, ineffective } };
    }
    case 'sent': {
      const { authorization: resource, ruleOrigins, ineffective } = conversion;
      return {
        namespace,
        outcome: { ...shared, broken: false, ineffective, resource: policyKey(resource) },
        derived: { resource, origin, ruleOrigins, source: policy },
      };
    }
    case 'broken': {
      for (const { path, message } of conversion.faults)
        context.report(
          problemAt(policy, { path, message, severity: 'error', effect: 'denies what it selects' }),
        );
      const { selector: written, targetRefs } = policy.spec;
      const target = { namespace, targetRefs, ...(written && { selector: written }) };
      const resource = denyAll(target, name, settings);
      return {
        namespace,
        outcome: { ...shared, broken: true, ineffective: [], resource: policyKey(resource) },
        derived: { resource, origin, ruleOrigins: [policy.position], source: policy },
      };
    }
  }
}

function fromPeerAuthentication(mtls: MtlsTable, policy: PeerAuthenticationObject): Result {
  const { namespace } = policy.metadata;
  const origin = { object: objectKey(policy), position: policy.position };
  const unused = mtls.unused.get(policy);
  const reasons = unused === undefined ? explainPorts(mtls, policy) : [unused];
  const converted = convertPeerAuthentication(mtls, policy);
  const selector = namespace === mtls.rootNamespace ? undefined : selectorLabels(policy.spec.selector);
  const strict = policy.spec.mode === 'STRICT' ? `${mtls.rootNamespace}/${STATIC_STRICT}` : undefined;
  const resource = converted === undefined ? strict : policyKey(converted.authorization);
  const outcome = {
    ...origin,
    source: policy,
    broken: false,
    dryRun: false,
    direct: false,
    ineffective: reasons.map((reason) => ({ rule: 0, reason })),
    ...(unused === undefined && resource !== undefined && { resource }),
    ...(selector && { selector }),
  };
  if (converted === undefined) return { namespace, outcome };
  const { authorization, ruleOrigins } = converted;
  return { namespace, outcome, derived: { resource: authorization, origin, ruleOrigins, source: policy } };
}

/** One that has targets denies at these only. */
function fromBroken(context: Context, policy: BrokenPolicy, name: string): Result {
  const { namespace, kind, position } = policy;
  const object = objectKey({ kind, metadata: policy });
  const selector = selectorLabels(policy.selector);
  const aim = aimOf(namespace, policy.targetRefs ?? []);
  const shared = { object, position, broken: true, dryRun: false, direct: true, ...aim };
  const resource = denyAll(policy, name, context.settings);
  return {
    namespace,
    outcome: { ...shared, ineffective: [], resource: policyKey(resource), ...(selector && { selector }) },
    derived: { resource, origin: { object, position }, ruleOrigins: [position] },
  };
}

function aimOf(namespace: string, targetRefs: readonly TargetRef[]): { readonly aim?: PolicyAim } {
  return targetRefs.length > 0 ? { aim: { namespace, targetRefs } } : {};
}

/** Names for broken policies that nothing else has: two that have no name of their own may be called the same. */
function nameBroken(results: readonly Result[], broken: readonly BrokenPolicy[]): readonly string[] {
  const taken = new Set(results.map(({ outcome }) => outcome.resource));
  return broken.map(({ kind, namespace, name }) => {
    const first = kind === 'PeerAuthentication' ? convertedName(name) : name;
    let unique = first;
    for (let count = 2; taken.has(`${namespace}/${unique}`); count += 1) unique = `${first}-${count}`;
    taken.add(`${namespace}/${unique}`);
    return unique;
  });
}

/** Sent as soon as there is any PeerAuthentication; its origin is the oldest that asks for it. */
function strictAuthorization(context: Context, mtls: MtlsTable): readonly Derived<Authorization>[] {
  const policies = context.inventory.peerAuthentications;
  const isStrict = (policy: PeerAuthenticationObject): boolean => policy.spec.mode === 'STRICT';
  const cause =
    [mtls.mesh, ...policies].find((policy) => policy !== undefined && isStrict(policy)) ?? policies[0];
  if (cause === undefined) return [];
  const position = cause.positionOf('spec.mtls.mode');
  return [
    {
      resource: staticStrict(mtls.rootNamespace),
      origin: { object: objectKey(cause), position },
      ruleOrigins: [position],
      source: cause,
    },
  ];
}

function indexBySelector(
  results: readonly Pick<Result, 'namespace' | 'outcome'>[],
): ReadonlyMap<string, SelectorIndex<Result['outcome']>> {
  const selecting = results.flatMap(({ namespace, outcome }) =>
    outcome.selector === undefined ? [] : [{ namespace, matchLabels: outcome.selector, value: outcome }],
  );
  const groups = Map.groupBy(selecting, ({ namespace }) => namespace);
  return new Map([...groups].map(([namespace, entries]) => [namespace, indexSelectors(entries)]));
}

function reportDryRun(context: Context, policy: AuthorizationPolicyObject): void {
  const written = badDryRun(policy);
  if (written === undefined) return;
  context.report(
    problemAt(policy, {
      path: DRY_RUN_PATH,
      message: `${JSON.stringify(written)} is neither true nor false`,
      severity: 'warning',
      effect: 'the policy is in force, not in dry run',
    }),
  );
}
