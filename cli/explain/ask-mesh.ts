import { join } from 'node:path';
import type { ServedWaypoints } from '#control-plane/served-waypoints.ts';
import type { ServedResources } from '#control-plane/status.ts';
import { CliError } from '../cli-error.ts';
import { callControlPlane } from '../control-plane-client.ts';
import type { MeshStatus } from '../local/mesh-status.ts';
import { nodeRunFolder, readJson, type StateFolder } from '../local/state-folder.ts';
import { callSupervisor, getState } from '../supervisor-client.ts';
import { bodyOf, callSocket } from '../unix-http.ts';
import type { Caller } from './explain.ts';
import { type MeshFacts, readMeshFacts, readRevoked } from './mesh-facts.ts';

/** What is asked for an explanation. */
export interface MeshAnswers {
  readonly facts: MeshFacts;
  readonly view: View;
}

/** What somebody of the mesh believes. */
interface View {
  /** `control plane`, or `ztunnel/NODE` where that does not answer. */
  readonly basis: string;
  readonly served: ServedResources;
  readonly toWaypoints: ServedWaypoints;
}

/**
 * Asks the supervisor how the mesh is, and the control plane what it serves. Where that does not answer, the mesh goes on as it
 * was configured last: then the ztunnel of the caller's node is asked what it has.
 * @throws CliError 3 when the mesh does not run
 */
export async function askMesh(stateDirectory: string, from: Caller): Promise<MeshAnswers> {
  const state = getState(stateDirectory);
  // Answered by a process of this very version, like all here.
  const status = (await callSupervisor(stateDirectory, { path: '/status' })) as MeshStatus;
  const revoked = readRevoked(readJson(join(state.path, 'ca', 'revoked.json')));
  const facts = readMeshFacts(status, revoked, Date.now());
  return { facts, view: await viewOf(stateDirectory, state, status, from) };
}

async function viewOf(
  stateDirectory: string,
  state: StateFolder,
  status: MeshStatus,
  from: Caller,
): Promise<View> {
  try {
    const served = (await callControlPlane(stateDirectory, { path: '/resources' })) as ServedResources;
    const toWaypoints = (await callControlPlane(stateDirectory, { path: '/waypoints' })) as ServedWaypoints;
    return { basis: 'control plane', served, toWaypoints };
  } catch (error) {
    if (!(error instanceof CliError && error.exitCode === 3)) throw error;
    const view = await ztunnelView(state, nodesToAsk(status, from));
    if (view === undefined) throw error;
    return view;
  }
}

/** The caller's own node first; the others believe the same, once they have been told. */
function nodesToAsk({ nodes, workloads }: MeshStatus, from: Caller): readonly string[] {
  const caller = workloads.find((workload) =>
    'ip' in from
      ? workload.addresses.includes(from.ip)
      : workload.namespace === from.namespace && workload.name === from.name,
  );
  const own = nodes.filter(({ ztunnel }) => ztunnel !== null).map(({ name }) => name);
  return own.toSorted((a, b) => Number(b === caller?.node) - Number(a === caller?.node));
}

async function ztunnelView(state: StateFolder, nodes: readonly string[]): Promise<View | undefined> {
  for (const node of nodes) {
    try {
      const socketPath = join(nodeRunFolder(state, node), 'ztunnel.sock');
      const { resources } = bodyOf(await callSocket({ socketPath, path: '/resources' })) as Pick<
        ServedResources,
        'resources'
      >;
      const served = { resources: resources.map((one) => ({ ...one, origin: UNWRITTEN })) };
      return { basis: `ztunnel/${node}`, served, toWaypoints: { waypoints: [], rules: [] } };
    } catch {
      // The next one may serve.
    }
  }
  return undefined;
}

/** A ztunnel does not know where something is written. */
const UNWRITTEN = { object: '', position: '' };
