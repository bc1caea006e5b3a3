import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';

const OBJECTS = join(import.meta.dirname, 'objects');

/** Debian 12 and Ubuntu 24.04 have this version of clang, newer ones do not. CI takes a test that is skipped for one that failed. */
const compiler =
  spawnSync('clang-14', ['--version'], { encoding: 'utf8' }).stdout?.includes('14.0.6') === true;

/** Objects by name. */
function objectsIn(folder: string): ReadonlyMap<string, Buffer> {
  const names = readdirSync(folder).filter((name) => name.endsWith('.o'));
  return new Map(names.sort().map((name) => [name, readFileSync(join(folder, name))]));
}

test.runIf(compiler)('the committed objects are what clang 14 makes of the sources', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-bpf-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  await promisify(execFile)(join(import.meta.dirname, 'build'), [folder]);
  const built = objectsIn(folder);
  const committed = objectsIn(OBJECTS);
  expect([...built.keys()]).toEqual([...committed.keys()]);
  const differing = [...built].filter(([name, bytes]) => !committed.get(name)?.equals(bytes));
  expect(
    differing.map(([name]) => name),
    'run npm run bpf:build and commit bpf/objects',
  ).toEqual([]);
});
