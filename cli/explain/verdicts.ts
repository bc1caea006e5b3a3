import { policyKey } from '#api/policy.ts';
import { AUTHORIZATION_TYPE, type ResourceType } from '#api/resource.ts';
import type { Workload } from '#api/workload.ts';
import type { ServedResources } from '#control-plane/status.ts';
import { authorize } from '#ztunnel/policy/authorize.ts';
import type { InboundConnection, Verdict } from '#ztunnel/policy/verdict.ts';
import type { Tables } from '#ztunnel/tables/tables.ts';

/** Whether a destination lets a connection in, and by which line. */
export interface ExplainedVerdict {
  readonly kind: Verdict['kind'];
  readonly reason: Verdict['reason'];
  readonly policy: string | null;
  readonly position: string | null;
  readonly dryRun: readonly { readonly policy: string; readonly would: 'allow' | 'deny' }[];
}

/** What verdicts are made of. */
export interface VerdictSources {
  readonly served: ServedResources;
  readonly tables: Tables;
}

/** What is asked at the far end; without a proven identity when the caller is not in the mesh. */
export function explainVerdict(
  { served, tables }: VerdictSources,
  workload: Workload,
  connection: InboundConnection,
): ExplainedVerdict {
  const verdict = authorize({ tables, workload, connection, missingPolicy: 'deny' });
  const { kind, reason, policy, rule, dryRun } = verdict;
  const decisive = policy ?? allowsOf(tables, workload, reason);
  return {
    kind,
    reason,
    policy: decisive === undefined ? null : objectOf(served, decisive),
    position: decisive === undefined ? null : positionOf(served, AUTHORIZATION_TYPE, decisive, rule),
    dryRun: dryRun.map(({ policy: key, would }) => ({ policy: objectOf(served, key), would })),
  };
}

/** When no ALLOW matched, the first of those that could have. */
function allowsOf(tables: Tables, workload: Workload, reason: Verdict['reason']): string | undefined {
  if (reason !== 'no-allow-matched') return undefined;
  const named = workload.authorizationPolicies.flatMap((key) => tables.policyByKey(key) ?? []);
  const first = [...named, ...tables.policiesOfNamespace(workload.namespace)].find(
    ({ action, dryRun }) => action === 'ALLOW' && !dryRun,
  );
  return first === undefined ? undefined : policyKey(first);
}

/** Where a resource (a rule of it) is written. */
export function positionOf(
  served: ServedResources,
  type: ResourceType,
  name: string,
  rule?: number,
): string | null {
  const found = served.resources.find((one) => one.type === type && one.name === name);
  if (found === undefined) return null;
  const position = (rule === undefined ? undefined : found.ruleOrigins?.[rule]) ?? found.origin.position;
  return position === '' ? null : position;
}

/** What a policy is written as. */
export function objectOf(served: ServedResources, policy: string): string {
  const found = served.resources.find((one) => one.type === AUTHORIZATION_TYPE && one.name === policy);
  return found === undefined || found.origin.object === '' ? policy : found.origin.object;
}

/** Whether a workload is in the mesh. */
export function isEnrolled({ tunnelProtocol }: Workload): boolean {
  return tunnelProtocol === 'HBONE';
}
