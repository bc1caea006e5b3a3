import type { Command } from 'commander';
import { runProcess } from './process-main.ts';

export function registerNodeAgent(program: Command): void {
  program
    .command('node-agent')
    .description("a node's agent: has its workloads' traffic captured, answers DNS for the others")
    .helpOption(false)
    .allowUnknownOption()
    .allowExcessArguments()
    .argument('[flags...]', 'see docs/operations.md')
    .passThroughOptions()
    .action(async (argv: readonly string[]) => {
      const [{ parseNodeAgentConfig }, { runNodeAgent }] = await Promise.all([
        import('../local/node-agent/config.ts'),
        import('../local/node-agent/main.ts'),
      ]);
      await runProcess((signal) => runNodeAgent(parseNodeAgentConfig(argv, process.env), signal));
    });
}
