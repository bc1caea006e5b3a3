import type { Command } from 'commander';
import { runProcess } from './process-main.ts';

export function registerControlPlane(program: Command): void {
  program
    .command('control-plane')
    .description('the control plane: reads objects, issues certificates, serves the configuration')
    .helpOption(false)
    .allowUnknownOption()
    .allowExcessArguments()
    .argument('[flags...]', 'see docs/operations.md')
    .passThroughOptions()
    .action(async (argv: readonly string[]) => {
      const [{ parseControlPlaneConfig }, { runControlPlane }] = await Promise.all([
        import('#control-plane/config.ts'),
        import('#control-plane/main.ts'),
      ]);
      await runProcess((signal) => runControlPlane(parseControlPlaneConfig(argv, process.env), signal));
    });
}
