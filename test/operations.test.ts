import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { makeProgram } from '#cli/commands.ts';
import { SETTING_FLAGS } from '#waypoint/setting-flags.ts';

const ROOT = join(import.meta.dirname, '..');
const DOCUMENT = readFileSync(join(ROOT, 'docs', 'operations.md'), 'utf8');

/** Flags of every command, as commander has them. */
async function flagsOfCommands(): Promise<readonly string[]> {
  const program = await makeProgram();
  return program.commands.flatMap((command) =>
    command.options.flatMap(({ long }) =>
      long === undefined || long === null ? [] : [`${command.name()} ${long}`],
    ),
  );
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
  const missing = (await flagsOfCommands()).filter((flag) => !DOCUMENT.includes(flag.split(' ')[1] ?? flag));
  expect(missing).toEqual([]);
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
