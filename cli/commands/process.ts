import type { Command } from 'commander';
import { callSupervisor } from '../supervisor-client.ts';
import { stateOption } from './options.ts';

const VERBS = {
  stop: 'stop a process of the mesh, until it is started again',
  start: 'start a process that was stopped',
  restart: "replace a process by a new one; a ztunnel's new one serves before the old one drains",
} as const;

export function registerProcess(program: Command): void {
  for (const [verb, description] of Object.entries(VERBS)) {
    program
      .command(verb)
      .description(description)
      .addOption(stateOption())
      .argument('<process>', 'control-plane or ztunnel/NODE')
      .action(async (name: string, options: { readonly state: string }) => {
        const path = `/processes/${encodeURI(name)}/${verb}`;
        await callSupervisor(options.state, { method: 'POST', path, timeoutMs: 120_000 });
      });
  }
}
