import type { Mesh } from './mesh.ts';
import type { Call, Reply } from './programs/calls.ts';
import { clientCommand } from './programs/programs.ts';

/** Sends requests from inside a workload, one after the other over kept connections. */
export async function callFrom(
  mesh: Mesh,
  workload: string,
  calls: readonly Call[],
): Promise<readonly Reply[]> {
  const { code, stdout, stderr } = await mesh.exec(workload, clientCommand(calls), 60_000);
  if (code !== 0) throw new Error(`the client in ${workload} ended with ${code}: ${stderr}`);
  return JSON.parse(stdout) as readonly Reply[];
}
