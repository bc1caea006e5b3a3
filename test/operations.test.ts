import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { expect, test } from 'vitest';
import { makeProgram } from '#cli/commands.ts';
import { SETTING_FLAGS } from '#waypoint/setting-flags.ts';

const ROOT = join(import.meta.dirname, '..');
const DOCUMENT = readFileSync(join(ROOT, 'docs', 'operations.md'), 'utf8');

/** Flags of every command and of those below it, as commander has them, by the command's name: `ca import`. */
async function flagsOfCommands(): Promise<ReadonlyMap<string, readonly string[]>> {
  const flags = new Map<string, readonly string[]>();
  const add = (command: Command, name: string): void => {
    flags.set(
      name,
      command.options.flatMap(({ long }) => (long === undefined || long === null ? [] : [long])),
    );
    for (const below of command.commands) add(below, `${name} ${below.name()}`.trim());
  };
  for (const command of (await makeProgram()).commands) add(command, command.name());
  return flags;
}

/** What the documents have somebody type: the words after `tulle`, in code. */
function typedCommands(): readonly string[] {
  const documents = ['README.md', ...globSync('docs/*.md', { cwd: ROOT })];
  return documents.flatMap((document) => {
    const text = readFileSync(join(ROOT, document), 'utf8');
    const code = [...text.matchAll(/```sh\n([\s\S]*?)```|`([^`\n]+)`/g)].map(
      ([, block, inline]) => block ?? inline ?? '',
    );
    return code
      .flatMap((each) => each.replaceAll('\\\n', ' ').split('\n'))
      .flatMap((line) => /(?:^|[\s/])tulle ([a-z][^:]*)$/.exec(line)?.[1] ?? [])
      .map((typed) => typed.split(/ -- | #/)[0] ?? '');
  });
}

/** Flags and environment variables that a process's config.ts names. */
function settingsOf(file: string): readonly string[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  const variables = [...text.matchAll(/'([A-Z][A-Z0-9]*_[A-Z0-9_]+)'/g)].map(([, name = '']) => name);
  const flags = [...text.matchAll(/^ +'?([a-z][a-z-]+)'?: \{ type: 'string'/gm)].map(
    ([, name = '']) => `--${name}`,
  );
  return [...new Set([...variables, ...flags])];
}

test('every command and flag is in docs/operations.md', async () => {
  const missing = [...(await flagsOfCommands())].flatMap(([command, flags]) =>
    flags.filter((flag) => !DOCUMENT.includes(flag)).map((flag) => `${command} ${flag}`),
  );
  expect(missing).toEqual([]);
});

test('every command and flag that the documents have somebody type is there', async () => {
  const flags = await flagsOfCommands();
  const typed = typedCommands();
  expect(typed.length).toBeGreaterThan(20);
  const unknown = typed.flatMap((line) => {
    const words = line.split(/\s+/);
    const [first = '', second = ''] = words;
    const names = [`${first} ${second}`, ...first.split('|')];
    const known = names.flatMap((name) => flags.get(name) ?? []);
    if (!names.some((name) => flags.has(name))) return [`tulle ${line}: no such command`];
    return words
      .flatMap((word) => /^--[a-z][a-z-]*/.exec(word.replaceAll(/[[\]]/g, ''))?.[0] ?? [])
      .filter((flag) => !known.includes(flag) && flag !== '--help')
      .map((flag) => `tulle ${line}: no ${flag}`);
  });
  expect(unknown).toEqual([]);
});

test.each(['ztunnel/config.ts', 'control-plane/config.ts', 'cli/local/node-agent/config.ts'])(
  'every setting of %s is in docs/operations.md',
  (file) => {
    const settings = settingsOf(file);
    expect(settings.length).toBeGreaterThan(3);
    expect(settings.filter((name) => !DOCUMENT.includes(name.replace(/_$/, '_*')))).toEqual([]);
  },
);

test('every setting of a waypoint is in docs/operations.md, beside its variable', () => {
  const rows = DOCUMENT.split('\n').map((line) => line.replaceAll(/\s+/g, ' '));
  const missing = SETTING_FLAGS.filter(({ flag, argument, variable }) => {
    const start = `| \`--${flag} ${argument}\` | ${variable === undefined ? '' : `\`${variable}\` `}|`;
    return !rows.some((row) => row.startsWith(start));
  });
  expect(missing).toEqual([]);
});
