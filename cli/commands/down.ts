import type { Command } from 'commander';
import { requireRoot, stateOption } from './options.ts';

export function registerDown(program: Command): void {
  program
    .command('down')
    .description(
      'end the mesh and its workloads, and remove all that it made on this host, also after a crash',
    )
    .addOption(stateOption())
    .action(async ({ state }: { readonly state: string }) => {
      requireRoot('tulle down');
      const { takeMeshDown } = await import('../local/take-down.ts');
      await takeMeshDown(state);
    });
}
