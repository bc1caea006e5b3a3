import type { Authorization } from '#api/policy.ts';
import type { Workload } from '#api/workload.ts';
import { type MeshObject, type ObjectKey, objectKey, type Position } from '../source/objects.ts';
import type { Ineffective } from './authorizations.ts';
import type { Context, Derived } from './context.ts';
import type { PolicyOutcome, PolicySet } from './policies.ts';
import { problemAt } from './problems.ts';
import { getOrAdd } from './selectors.ts';

/** What became of a policy. */
export interface PolicyStatus {
  readonly object: ObjectKey;
  readonly position: Position;
  /** Name of the Authorization that stands for it; absent where nobody gets one. */
  readonly resource?: string;
  /** Whether it could not be read, so that it denies all that it may select. */
  readonly broken: boolean;
  /** Whether it is only tried out; then it is enforced nowhere. */
  readonly dryRun: boolean;
  /** Rules that do not do what they say. A PeerAuthentication counts as one rule. */
  readonly ineffective: readonly Ineffective[];
  /** Nodes with a workload in the mesh that it applies to, sorted: their ztunnels enforce it. */
  readonly nodes: readonly string[];
  /** Waypoints, `namespace/name`, that enforce it, sorted. */
  readonly waypoints: readonly string[];
  /** Labels of the workloads that it is for; absent: it does not choose by labels. */
  readonly selector?: ReadonlyMap<string, string>;
}

/** Of a policy that is for waypoints only and no Authorization stands for; it counts as one rule. */
export function waypointPolicyStatus(
  policy: MeshObject,
  reasons: readonly string[],
  waypoints: readonly string[],
): PolicyStatus {
  return {
    object: objectKey(policy),
    position: policy.position,
    broken: false,
    dryRun: false,
    ineffective: reasons.map((reason) => ({ rule: 0, reason })),
    nodes: [],
    waypoints,
  };
}

/** Says where each policy is enforced, and reports selectors that select nothing. */
export function summarizePolicies(
  context: Context,
  policies: PolicySet,
  workloads: readonly Derived<Workload>[],
): readonly PolicyStatus[] {
  const authorizations = new Map(
    policies.authorizations.map(({ resource }) => [`${resource.namespace}/${resource.name}`, resource]),
  );
  const nodes = indexNodes(workloads);
  return policies.outcomes.map((outcome) => {
    if (outcome.selector !== undefined && !policies.selected.has(outcome.object))
      reportUnselective(context, outcome);
    const { object, position, resource, broken, dryRun } = outcome;
    const older = policies.outdone.get(object);
    const outdone = older && { rule: 0, reason: `the older ${older} holds for workloads that both select` };
    const authorization = resource === undefined ? undefined : authorizations.get(resource);
    const enforcing = authorization === undefined ? [] : nodesOf(nodes, authorization);
    return {
      object,
      position,
      ...(resource !== undefined && { resource }),
      broken,
      dryRun,
      ineffective: [...outcome.ineffective, ...(outdone ? [outdone] : [])],
      nodes: [...enforcing].sort(),
      waypoints: [],
      ...(outcome.selector !== undefined && { selector: outcome.selector }),
    };
  });
}

/** Nodes of workloads in the mesh: of all, by namespace, and by the policies that they list. */
interface NodeIndex {
  readonly all: Set<string>;
  readonly byNamespace: Map<string, Set<string>>;
  readonly byPolicy: Map<string, Set<string>>;
}

function indexNodes(workloads: readonly Derived<Workload>[]): NodeIndex {
  const index: NodeIndex = { all: new Set(), byNamespace: new Map(), byPolicy: new Map() };
  for (const { resource } of workloads) {
    if (resource.node === '' || resource.tunnelProtocol !== 'HBONE') continue;
    index.all.add(resource.node);
    getOrAdd(index.byNamespace, resource.namespace, () => new Set()).add(resource.node);
    for (const name of resource.authorizationPolicies)
      getOrAdd(index.byPolicy, name, () => new Set()).add(resource.node);
  }
  return index;
}

function nodesOf(index: NodeIndex, { scope, namespace, name }: Authorization): Iterable<string> {
  switch (scope) {
    case 'GLOBAL':
      return index.all;
    case 'NAMESPACE':
      return index.byNamespace.get(namespace) ?? [];
    case 'WORKLOAD_SELECTOR':
      return index.byPolicy.get(`${namespace}/${name}`) ?? [];
  }
}

function reportUnselective(context: Context, { source, selector }: PolicyOutcome): void {
  if (source === undefined || selector === undefined) return;
  const labels = [...selector].map(([key, value]) => `${key}: ${value}`).join(', ');
  context.report(
    problemAt(source, {
      path: 'spec.selector',
      message: `no workload has the labels ${labels}; correct the selector, or give them to a workload`,
      severity: 'warning',
      effect: 'the policy applies to nothing',
    }),
  );
}
