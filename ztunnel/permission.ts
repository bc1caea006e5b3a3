import type { Workload } from '#api/workload.ts';
import { CONFIGURATION_WAIT_MS, type DataPath, POLICY_WAIT_MS } from './data-path.ts';
import { authorize, missingPolicies } from './policy/authorize.ts';
import type { InboundConnection, Verdict } from './policy/verdict.ts';

/**
 * Whether a new connection is let in. Waits for the first policies of all, and for those that the workload names: what is not
 * there in time denies (for the latter, as the setting says).
 */
export function authorizeWhenKnown(
  path: DataPath,
  workload: Workload,
  connection: InboundConnection,
): Verdict | Promise<Verdict> {
  const { tables, config } = path;
  const isComplete = tables.synced('authorizations') && missingOf(path, workload).length === 0;
  if (!isComplete) return authorizeLater(path, workload, connection);
  return authorize({
    tables,
    workload: currentOf(path, workload),
    connection,
    missingPolicy: config.missingPolicy,
  });
}

async function authorizeLater(
  path: DataPath,
  workload: Workload,
  connection: InboundConnection,
): Promise<Verdict> {
  const { waits, tables, config } = path;
  const isSynced = await waits.until(
    (known) => known.synced('authorizations') || undefined,
    CONFIGURATION_WAIT_MS,
  );
  if (isSynced === undefined) return { kind: 'deny', reason: 'missing-policy', dryRun: [] };
  await waits.until(() => missingOf(path, workload).length === 0 || undefined, POLICY_WAIT_MS);
  const { missingPolicy } = config;
  return authorize({ tables, workload: currentOf(path, workload), connection, missingPolicy });
}

function missingOf(path: DataPath, workload: Workload): readonly string[] {
  return missingPolicies(path.tables, currentOf(path, workload));
}

/** Whether a connection that is there would be let in still. A policy that is missing cuts none. */
export function authorizeNow(path: DataPath, workload: Workload, connection: InboundConnection): Verdict {
  const { tables } = path;
  return authorize({ tables, workload: currentOf(path, workload), connection, missingPolicy: 'allow' });
}

/** The workload as it is now; as it was last, if it is gone from the tables while its connections go on. */
function currentOf({ tables }: DataPath, workload: Workload): Workload {
  return tables.workloadByUid(workload.uid) ?? workload;
}
