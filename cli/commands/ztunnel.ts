import type { Command } from 'commander';
import { runProcess } from './process-main.ts';

export function registerZtunnel(program: Command): void {
  program
    .command('ztunnel')
    .description("a node's proxy: carries its workloads' connections through HBONE")
    .helpOption(false)
    .allowUnknownOption()
    .allowExcessArguments()
    .argument('[flags...]', 'see docs/operations.md')
    .passThroughOptions()
    .action(async (argv: readonly string[]) => {
      const [{ parseZtunnelConfig }, { runZtunnel }] = await Promise.all([
        import('#ztunnel/config.ts'),
        import('#ztunnel/main.ts'),
      ]);
      await runProcess((signal) => runZtunnel(parseZtunnelConfig(argv, process.env), signal));
    });
}
