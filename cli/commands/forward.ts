import type { Command } from 'commander';
import { usageError } from '../cli-error.ts';
import { forwardPort } from '../local/forward-port.ts';
import { formatWorkloadRef, parseWorkloadRef } from '../local/names.ts';
import type { PodDescription } from '../local/pods.ts';
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
      const ref = parseWorkloadRef(workload);
      const [local = '', port = '', ...rest] = ports.split(':');
      if (rest.length > 0) throw usageError(`not LOCAL:PORT: ${JSON.stringify(ports)}`);
      const wanted = { localPort: parsePort(local, 0), port: parsePort(port) };
      // Answered by a process of this very version.
      const pod = (await callSupervisor(options.state, {
        path: `/pods/${formatWorkloadRef(ref)}`,
      })) as PodDescription;
      await forwardPort(pod, wanted);
    });
}
