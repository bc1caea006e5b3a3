import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AuthorityReport } from '#control-plane/authority-report.ts';
import { type CommandResult, mustRun, runCommand } from './command.ts';
import { type Mesh, TULLE } from './mesh.ts';

/** Where a rotation is; undefined: there is none. */
export type RotationPhase = 'distributing' | 'retiring' | undefined;

/** Runs `tulle ca …` on a mesh. */
export function runCa(mesh: Mesh, ...args: readonly string[]): Promise<CommandResult> {
  return runCommand([TULLE, 'ca', ...args, '--state', mesh.state], 60_000);
}

/** What `tulle ca list` says. @throws Error while the control plane is away */
export async function authoritiesOf(mesh: Mesh): Promise<AuthorityReport> {
  const { code, stdout, stderr } = await runCa(mesh, 'list', '-o', 'json');
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as AuthorityReport;
}

/** Whether a rotation is there; not while the control plane is away. */
export async function isInPhase(mesh: Mesh, phase: RotationPhase): Promise<boolean> {
  try {
    return (await authoritiesOf(mesh)).rotation?.phase === phase;
  } catch {
    return false;
  }
}

/** Serial number of the root that signs. */
export function signingRoot({ authorities }: AuthorityReport): string | undefined {
  return authorities.find(({ role, phase }) => role === 'root' && phase === 'signing')?.serial;
}

/** Arguments of `tulle ca import`: what signs, and its root. */
export interface OperatorAuthority {
  readonly signing: readonly string[];
  readonly root: readonly string[];
}

/** Makes an RSA root and an intermediate in a folder, as an operator would, with openssl. */
export async function makeOperatorAuthority(folder: string): Promise<OperatorAuthority> {
  const at = (name: string): string => join(folder, name);
  const usage = 'keyUsage=critical,keyCertSign,cRLSign';
  const rsa = (bits: number): readonly string[] => ['-newkey', `rsa:${bits}`, '-nodes'];
  await mustRun([
    ...['openssl', 'req', '-x509', ...rsa(3072), '-keyout', at('root.key'), '-out', at('root.pem')],
    ...['-subj', '/CN=root', '-days', '30', '-addext', usage],
  ]);
  await mustRun([
    ...['openssl', 'req', ...rsa(2048), '-keyout', at('sub.key'), '-out', at('sub.csr'), '-subj', '/CN=sub'],
  ]);
  writeFileSync(at('sub.cnf'), `basicConstraints=critical,CA:TRUE,pathlen:0\n${usage}\n`);
  await mustRun([
    ...['openssl', 'x509', '-req', '-in', at('sub.csr'), '-CA', at('root.pem'), '-CAkey', at('root.key')],
    ...['-CAcreateserial', '-days', '20', '-extfile', at('sub.cnf'), '-out', at('sub.pem')],
  ]);
  return { signing: ['--cert', at('sub.pem'), '--key', at('sub.key')], root: ['--root', at('root.pem')] };
}
