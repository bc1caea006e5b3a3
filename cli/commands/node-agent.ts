import type { Command } from 'commander';
import { addProcess } from './process-main.ts';

const DESCRIPTION = "a node's agent: has its workloads' traffic captured, answers DNS for the others";

export function registerNodeAgent(program: Command): void {
  addProcess(program, 'node-agent', DESCRIPTION, async (argv, signal) => {
    const [{ parseNodeAgentConfig }, { runNodeAgent }] = await Promise.all([
      import('../local/node-agent/config.ts'),
      import('../local/node-agent/main.ts'),
    ]);
    await runNodeAgent(parseNodeAgentConfig(argv, process.env), signal);
  });
}
