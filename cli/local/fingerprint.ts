import { createHash } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '..', '..');
const PROGRAM_FOLDERS = ['bpf', 'certs', 'cli', 'control-plane', 'waypoint', 'ztunnel'];

/** Variables that differ from shell to shell and that no process of the mesh reads. */
const OF_THE_SHELL =
  /^(_|PWD|OLDPWD|SHLVL|TERM|COLORTERM|COLUMNS|LINES|PS1|LS_COLORS|HISTSIZE|MAIL|DISPLAY|WINDOWID|INIT_CWD|INVOCATION_ID|JOURNAL_STREAM|VITEST.*|TEST|(SSH|SUDO|XDG|DBUS|npm|TMUX|STY)(_.*)?)$/;

/**
 * Tells whether a process that runs is what would be started now: the same code with the same flags and environment. A process with
 * another fingerprint is replaced.
 */
export function fingerprintOf(command: readonly string[], env: NodeJS.ProcessEnv): string {
  const variables = Object.entries(env)
    .filter(([name]) => !OF_THE_SHELL.test(name))
    .toSorted();
  return digest([codeVersion(), command, variables]);
}

let version: string | undefined;

/** Of the program's files as they are now: by name, size and time of change. */
function codeVersion(): string {
  version ??= digest([process.version, PROGRAM_FOLDERS.flatMap(filesIn)]);
  return version;
}

function filesIn(folder: string): readonly (readonly [string, number, number])[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.[a-z]+$/.test(name) && !name.endsWith('.test.ts'))
    .toSorted()
    .flatMap((name) => {
      const stat = statSync(join(ROOT, folder, name), { throwIfNoEntry: false });
      return stat?.isFile() ? [[join(folder, name), stat.size, stat.mtimeMs] as const] : [];
    });
}

function digest(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16);
}
