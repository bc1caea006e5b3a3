import type { CommandResult } from './command.ts';
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

/** Has curl in a workload ask for a URL, for five seconds at most. */
export function curlFrom(
  mesh: Mesh,
  workload: string,
  url: string,
  ...flags: readonly string[]
): Promise<CommandResult> {
  return mesh.exec(workload, ['curl', '-sS', '-m', '5', ...flags, url]);
}
