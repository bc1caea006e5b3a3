import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { CliError } from '../cli-error.ts';
import { MAX_NODES } from './addresses.ts';
import type { FabricNode } from './fabric.ts';
import { nodeObject } from './kubernetes-objects.ts';
import { ztunnelSocket } from './mesh-processes.ts';
import {
  ensureToken,
  LONGEST_SOCKET_PATH,
  nodeFile,
  nodeRunFolder,
  type StateFolder,
  tokenFile,
  writeAtomic,
} from './state-folder.ts';
import { environmentFile, ztunnelEnvironment } from './ztunnel-environment.ts';

/** Folder of the waypoints beside those of the nodes, in `tokens`, `run` and `logs`. */
const WAYPOINTS = 'waypoints';

/**
 * Refuses the name of a node whose files would be among those of the waypoints.
 * @throws CliError
 */
export function checkNodeName(name: string): string {
  if (name !== WAYPOINTS) return name;
  throw new CliError(
    `a node cannot be called ${WAYPOINTS}: the files of waypoints are called so; choose another name`,
  );
}

/** A node keeps the number that it has while the fabric stands, whatever the order in which nodes are named. */
export function numberNodes(
  wanted: readonly { readonly name: string; readonly external: boolean }[],
  before: readonly FabricNode[],
): readonly FabricNode[] {
  if (wanted.length > MAX_NODES) throw new CliError(`a mesh on one machine has at most ${MAX_NODES} nodes`);
  const numbers = new Map(before.map(({ name, number }) => [name, number]));
  const taken = new Set(wanted.flatMap(({ name }) => numbers.get(name) ?? []));
  let next = 1;
  return wanted.map(({ name, external }) => {
    const kept = numbers.get(name);
    if (kept !== undefined) return { name, external, number: kept };
    while (taken.has(next)) next++;
    taken.add(next);
    return { name, external, number: next };
  });
}

/** Writes what the control plane and the nodes' processes read: Node objects, credentials (kept while the node is one of the mesh), environments of external ztunnels. */
export function writeNodeFiles(state: StateFolder, nodes: readonly FabricNode[], svidTtl: string): void {
  const names = new Set(nodes.map(({ name }) => name));
  for (const file of readdirSync(join(state.path, 'nodes'))) {
    if (!names.has(file.replace(/\.json$/, ''))) rmSync(join(state.path, 'nodes', file));
  }
  for (const file of readdirSync(join(state.path, 'tokens'))) {
    if (!names.has(file) && file !== WAYPOINTS) rmSync(join(state.path, 'tokens', file), { recursive: true });
  }
  for (const node of nodes) {
    writeAtomic(nodeFile(state, node.name), `${JSON.stringify(nodeObject(node), undefined, 1)}\n`);
    ensureToken(tokenFile(state, node.name));
    mkdirSync(nodeRunFolder(state, node.name), { recursive: true, mode: 0o700 });
    const environment = environmentFilePath(state, node);
    if (node.external) writeAtomic(environment, environmentFile(ztunnelEnvironment(state, node, svidTtl)));
    else rmSync(environment, { force: true });
  }
}

/** Where the environment of an external node's ztunnel is. */
export function environmentFilePath(state: StateFolder, node: FabricNode): string {
  return join(nodeRunFolder(state, node.name), 'ztunnel.env');
}

/**
 * Refuses a folder in which sockets would have names that are too long for the kernel.
 * @throws CliError
 */
export function checkSocketPaths(state: StateFolder, nodes: readonly FabricNode[]): void {
  for (const { name } of nodes) {
    if (Buffer.byteLength(ztunnelSocket(state, name, 9999)) > LONGEST_SOCKET_PATH) {
      throw new CliError(
        `the path of the state folder is too long for Unix sockets: ${state.path}; choose a shorter one`,
      );
    }
  }
}
