import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { parseFiles } from './parse-files.ts';

const FIXTURES = 'test/fixtures/objects';

const folders: string[] = [];
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'tulle-objects-'));
  folders.push(path);
  return path;
}

test('the files of a folder are read with those of its folders, in order', async () => {
  const { objects, problems } = await parseFiles([`${FIXTURES}/folder`]);
  expect(problems).toEqual([]);
  expect([...objects.keys()]).toEqual(['Namespace a', 'Namespace b', 'Namespace c']);
});

test('a path that is not there is a problem', async () => {
  const path = join(await folder(), 'absent.yaml');
  const { objects, problems } = await parseFiles([path]);
  expect(objects.size).toBe(0);
  expect(problems).toMatchObject([{ object: path, severity: 'error', message: 'absent.yaml is not there' }]);
});
