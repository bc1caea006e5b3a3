import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { CliError } from '../cli-error.ts';
import { checkName } from '../local/names.ts';
import { checkNodeName } from '../local/node-files.ts';
import { tokenFile } from '../local/state-folder.ts';
import { getState } from '../supervisor-client.ts';
import { stateOption } from './options.ts';

export function registerToken(program: Command): void {
  program
    .command('token')
    .description('print the credential of a node, with which its ztunnel and node agent prove who they are')
    .addOption(stateOption())
    .requiredOption('--node <node>', 'the node')
    .action((options: { readonly state: string; readonly node: string }) => {
      const node = checkNodeName(checkName('--node', options.node));
      const file = tokenFile(getState(options.state), node);
      let token: string;
      try {
        token = readFileSync(file, 'utf8');
      } catch (cause) {
        throw new CliError(`there is no credential of a node ${node}; tulle up makes them`, {
          cause,
        });
      }
      // A file with a line break at its end is no credential, so none is added unless somebody looks at it.
      process.stdout.write(process.stdout.isTTY ? `${token}\n` : token);
    });
}
