import type { Command } from 'commander';
import type { AuthorityReport } from '#control-plane/authority-report.ts';
import { callControlPlane } from '../control-plane-client.ts';
import { type ImportFlags, readImport } from './ca-import.ts';
import { formatAuthorities } from './ca-text.ts';
import { outputOption, stateOption } from './options.ts';

interface ListFlags {
  readonly state: string;
  readonly output: 'text' | 'json';
}

interface RevokeFlags {
  readonly state: string;
  readonly undo?: boolean;
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
  ca.command('revoke')
    .description('have nobody take an identity, or the one certificate, for a peer any more')
    .addOption(stateOption())
    .argument('<what>', 'spiffe://… or the serial number of a certificate')
    .option('--undo', 'take it back')
    .action(async (what: string, { state, undo = false }: RevokeFlags) => {
      const body = { what, undo };
      const report = await callControlPlane(state, { method: 'POST', path: '/ca/revoke', body });
      console.log(formatAuthorities(report as AuthorityReport));
    });
  ca.command('import')
    .description("change to an authority of your own, step by step, as 'rotate' does")
    .addOption(stateOption())
    .requiredOption('--cert <file>', 'the certificate that is to sign, PEM; or PKCS#12 with its key')
    .option('--key <file>', 'its key, PEM, not encrypted')
    .option('--chain <file>', 'certificates between it and the root, PEM')
    .option('--root <file>', 'the root, PEM')
    .option('--password-file <file>', 'a file with the password of a PKCS#12 file')
    .action(async ({ state, ...flags }: ImportFlags & { readonly state: string }) => {
      const body = readImport(flags);
      const report = await callControlPlane(state, { method: 'POST', path: '/ca/import', body });
      console.log(formatAuthorities(report as AuthorityReport));
    });
}
