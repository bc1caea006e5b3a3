import type { Command } from 'commander';
import { execInWorkload } from '../local/exec-in-workload.ts';
import { parseWorkloadRef } from '../local/names.ts';
import { requireRoot, stateOption, withoutSeparator } from './options.ts';

export function registerExec(program: Command): void {
  program
    .command('exec')
    .description("run a command inside a workload; the exit code is the command's")
    .addOption(stateOption())
    .argument('<workload>', 'NAMESPACE/NAME')
    .argument('<command...>', 'command with its arguments, after --')
    .passThroughOptions()
    .action(async (workload: string, command: readonly string[], options: { readonly state: string }) => {
      requireRoot('tulle exec');
      const ref = parseWorkloadRef(workload);
      process.exitCode = await execInWorkload(options.state, ref, withoutSeparator(command));
    });
}
