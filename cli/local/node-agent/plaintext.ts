import { authorizeWithoutIdentity, missingPolicies, policiesOf } from '#ztunnel/policy/authorize.ts';
import type { Tables } from '#ztunnel/tables/tables.ts';
import type { PodInfo } from '#ztunnel/worker-messages.ts';
import type { PlaintextVerdict } from './decide.ts';

/**
 * What policies say to all callers of a pod that have no identity, by the same function that the ztunnel asks about each of
 * them; undefined until the workload API has told of the pod and of policies.
 */
export function plaintextVerdict(tables: Tables, pod: PodInfo, node: string): PlaintextVerdict | undefined {
  if (!tables.synced('authorizations')) return undefined;
  const workload = tables.workloadByName(pod.name, pod.namespace, pod.serviceAccount, node);
  if (workload === undefined) return undefined;
  return authorizeWithoutIdentity(policiesOf(tables, workload), missingPolicies(tables, workload).length > 0);
}
