import type { Command } from 'commander';
import { takeMeshDown } from '../local/take-down.ts';
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
      await takeMeshDown(state);
    });
}
