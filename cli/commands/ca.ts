import type { Command } from 'commander';
import type { AuthorityReport } from '#control-plane/authority-report.ts';
import { callControlPlane } from '../control-plane-client.ts';
import { formatAuthorities } from './ca-text.ts';
import { outputOption, stateOption } from './options.ts';

interface ListFlags {
  readonly state: string;
  readonly output: 'text' | 'json';
}

export function registerCa(program: Command): void {
  const ca = program.command('ca').description('the certificate authority: who signs, and who is trusted');
  ca.command('list')
    .description('authorities, roots that are trusted, and the progress of a rotation')
    .addOption(stateOption())
    .addOption(outputOption())
    .action(async ({ state, output }: ListFlags) => {
      const report = await callControlPlane(state, { path: '/ca' });
      if (output === 'json') console.log(JSON.stringify(report, undefined, 2));
      // Answered by a process of this very version.
      else console.log(formatAuthorities(report as AuthorityReport));
    });
  ca.command('rotate')
    .description(
      'change to a new authority, step by step, while traffic goes on; tulle ca list says how far it is',
    )
    .addOption(stateOption())
    .action(async ({ state }: { readonly state: string }) => {
      const report = await callControlPlane(state, { method: 'POST', path: '/ca/rotate' });
      console.log(formatAuthorities(report as AuthorityReport));
    });
}
