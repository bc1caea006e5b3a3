import { setTimeout as delay } from 'node:timers/promises';
import { CliError } from '../cli-error.ts';
import { loadInventoryIfWhole } from './inventory.ts';
import { type Lock, lockHolder, takeLock } from './lock.ts';
import { endProcess } from './process-signal.ts';
import { deletedStateFolder, findStateFolder, isStateFolder, type StateFolder } from './state-folder.ts';
import { endWorkloads, hasRemains, removeMesh } from './sweep.ts';

/** Time that workloads have to end by themselves. */
const WORKLOAD_GRACE_MS = 5_000;
/** Time that `tulle up` has to drain. */
const UP_GRACE_MS = 45_000;

/** Ends a mesh: its workloads while it still carries their last calls, then `tulle up`, then whatever is left. */
export async function takeMeshDown(stateDirectory: string): Promise<void> {
  const state = findStateFolder(stateDirectory) ?? deletedStateFolder(stateDirectory);
  if (!isStateFolder(state.path) && !hasRemains(state)) {
    console.log(`nothing to do: there is no state folder ${stateDirectory}`);
    return;
  }
  await endWorkloads(state, WORKLOAD_GRACE_MS);
  const up = lockHolder(state);
  if (up !== undefined) await endProcess(up, UP_GRACE_MS);
  const lock = await lockWhenFree(state);
  try {
    const namespaces = await removeMesh(state, loadInventoryIfWhole(state));
    console.log(
      namespaces.length === 0 ? 'mesh is down' : `mesh is down: removed ${namespaces.length} namespaces`,
    );
  } finally {
    lock.release();
  }
}

async function lockWhenFree(state: StateFolder): Promise<Lock> {
  const deadline = performance.now() + 5_000;
  for (;;) {
    const lock = await takeLock(state);
    if ('release' in lock) return lock;
    if (performance.now() > deadline) {
      throw new CliError(
        `the state folder ${state.path} is in use by process ${lock.holder?.pid ?? 'unknown'}`,
      );
    }
    await delay(50);
  }
}
