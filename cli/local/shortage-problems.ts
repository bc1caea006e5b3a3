import { join } from 'node:path';
import { z } from 'zod';
import type { StatusProblem } from '#control-plane/status.ts';
import { callSocket } from '../unix-http.ts';
import type { FabricNode } from './fabric.ts';
import { nodeRunFolder, type StateFolder } from './state-folder.ts';

const ANSWER = z.array(
  z.object({ shortage: z.string(), pod: z.string(), error: z.string(), since: z.string() }),
);
const TIMEOUT_MS = 2_000;
/** One for each pod of a busy node would bury everything else; the rest is at `/shortages`. */
const MOST_OF_A_NODE = 10;

/** What the ztunnels of all nodes refused in the last five minutes for want of something. One that does not answer says nothing. */
export async function askShortages(
  state: StateFolder,
  nodes: readonly FabricNode[],
): Promise<readonly StatusProblem[]> {
  const own = nodes.filter(({ external }) => !external);
  return (await Promise.all(own.map(({ name }) => askNode(state, name)))).flat();
}

async function askNode(state: StateFolder, node: string): Promise<readonly StatusProblem[]> {
  const socketPath = join(nodeRunFolder(state, node), 'ztunnel.sock');
  try {
    const { status, body } = await callSocket({ socketPath, path: '/shortages', timeoutMs: TIMEOUT_MS });
    return status === 200 ? problemsOf(node, ANSWER.parse(body)) : [];
  } catch {
    return []; // It is down, which its process state shows, or of another make.
  }
}

/** How often it was is left out, so that what goes on stays one problem. */
function problemsOf(node: string, shortages: z.infer<typeof ANSWER>): readonly StatusProblem[] {
  return shortages.slice(-MOST_OF_A_NODE).map(({ shortage, pod, error, since }) => ({
    object: `ztunnel/${node}`,
    position: '',
    path: '',
    message: `connections of ${pod} are refused for want of ${shortage} since ${since.replace(/\.\d+Z$/, 'Z')}: ${error}`,
    severity: 'warning',
    effect: 'connections that are open go on',
  }));
}
