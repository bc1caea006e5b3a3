import type { Command } from 'commander';
import type { MeshStatus } from '../local/mesh-status.ts';
import { formatStatus } from '../local/status-text.ts';
import { callSupervisor } from '../supervisor-client.ts';
import { outputOption, stateOption } from './options.ts';

export function registerStatus(program: Command): void {
  program
    .command('status')
    .description(
      'nodes, workloads, services, waypoints, routes, policies: configured, acknowledged, rejected, problems',
    )
    .addOption(stateOption())
    .addOption(outputOption())
    .action(async (options: { readonly state: string; readonly output: 'text' | 'json' }) => {
      const status = await callSupervisor(options.state, { path: '/status' });
      if (options.output === 'json') {
        console.log(JSON.stringify(status, undefined, 2));
        return;
      }
      // Answered by a process of this very version.
      console.log(formatStatus(status as MeshStatus));
    });
}
