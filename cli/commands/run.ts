import { type Command, Option } from 'commander';
import { usageError } from '../cli-error.ts';
import { parseCapability } from '../local/enter.ts';
import { checkName, parseLabel, parseNamedPort } from '../local/names.ts';
import { runWorkload } from '../local/run-workload.ts';
import { getUser } from '../local/users.ts';
import { collect, requireRoot, stateOption, withoutSeparator } from './options.ts';

interface RunOptions {
  readonly state: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly name: string;
  readonly node?: string;
  readonly label?: readonly string[];
  readonly port?: readonly string[];
  readonly user?: string;
  readonly capAdd?: readonly string[];
}

export function registerRun(program: Command): void {
  program
    .command('run')
    .description("run a command as a workload of the mesh, until it ends; the exit code is the command's")
    .addOption(stateOption())
    .requiredOption('--namespace <namespace>', 'namespace of the workload')
    .requiredOption('--service-account <name>', 'service account: with the namespace, its identity')
    .requiredOption('--name <name>', 'name of the workload')
    .option('--node <node>', 'node to run on (default: the one with the fewest workloads)')
    .addOption(new Option('--label <key=value>', 'label, may be repeated').argParser(collect))
    .addOption(new Option('--port <name=number>', 'named port, may be repeated').argParser(collect))
    .option('--user <user>', 'who to run it as (default: who called sudo, else root)')
    .addOption(new Option('--cap-add <capability>', 'allow a capability, may be repeated').argParser(collect))
    .argument('<command...>', 'command with its arguments, after --')
    .passThroughOptions()
    .action(async (command: readonly string[], options: RunOptions) => {
      requireRoot('tulle run');
      const ports = (options.port ?? []).map(parseNamedPort);
      if (new Set(ports.map(({ name }) => name)).size < ports.length)
        throw usageError('--port: a name is there twice');
      process.exitCode = await runWorkload(
        options.state,
        {
          namespace: checkName('--namespace', options.namespace),
          name: checkName('--name', options.name),
          serviceAccount: checkName('--service-account', options.serviceAccount),
          ...(options.node !== undefined && { node: checkName('--node', options.node) }),
          labels: Object.fromEntries((options.label ?? []).map(parseLabel)),
          ports,
          user: getUser(options.user ?? process.env['SUDO_USER'] ?? 'root'),
          capabilities: [...new Set((options.capAdd ?? []).map(parseCapability))],
        },
        withoutSeparator(command),
      );
    });
}
