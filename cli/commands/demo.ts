import type { Command } from 'commander';
import { checkDemo, runDemo } from '../demo/demo.ts';
import { requireRoot, stateOption } from './options.ts';

export function registerDemo(program: Command): void {
  program
    .command('demo')
    .description('run the sample mesh: a shop of three services on two nodes, and an outsider')
    .addOption(stateOption())
    .option('--check', 'probe it, print a line for each thing that held, and end')
    .action(async ({ state, check }: { readonly state: string; readonly check?: boolean }) => {
      requireRoot('tulle demo');
      if (check === true) process.exitCode = (await checkDemo()) ? 0 : 1;
      else await runDemo(state);
    });
}
