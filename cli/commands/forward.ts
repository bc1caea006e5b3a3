import type { Command } from 'commander';
import { usageError } from '../cli-error.ts';
import { callSupervisor } from '../supervisor-client.ts';
import { parsePort, requireRoot, stateOption } from './options.ts';

export function registerForward(program: Command): void {
  program
    .command('forward')
    .description('open a port of this host (127.0.0.1) that leads into a workload, until Ctrl-C')
    .addOption(stateOption())
    .argument('<workload>', 'NAMESPACE/NAME')
    .argument('<ports>', 'LOCAL:PORT; 0 as LOCAL takes a free one')
    .action(async (workload: string, ports: string, options: { readonly state: string }) => {
      requireRoot('tulle forward');
      const [{ parseWorkloadRef, formatWorkloadRef }, { forwardPort }] = await Promise.all([
        import('../local/names.ts'),
        import('../local/forward-port.ts'),
      ]);
      const ref = parseWorkloadRef(workload);
      const [local = '', port = '', ...rest] = ports.split(':');
      if (rest.length > 0) throw usageError(`not LOCAL:PORT: ${JSON.stringify(ports)}`);
      const wanted = { localPort: parsePort(local, 0), port: parsePort(port) };
      // Answered by a process of this very version.
      const pod = (await callSupervisor(options.state, {
        path: `/pods/${formatWorkloadRef(ref)}`,
      })) as Parameters<typeof forwardPort>[0];
      await forwardPort(pod, wanted);
    });
}
