import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { checkFiles } from '#cli/commands/check.ts';

const ROOT = join(import.meta.dirname, '..');
/** True without a mesh, whatever is written: nothing runs. */
const NOTHING_RUNS = /waypoint \S+ is not ready: no workload of it is ready|no workload has the labels/;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-docs-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** The YAML of a document, without the indentation of lists. */
function examplesOf(document: string): readonly string[] {
  const text = readFileSync(join(ROOT, document), 'utf8');
  return [...text.matchAll(/^( *)```yaml\n([\s\S]*?)^ *```/gm)].map(([, indent = '', example = '']) =>
    example.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  );
}

/** What `tulle check` says of files with these texts, but for what is true of every file. */
async function complaintsAbout(texts: readonly string[]): Promise<readonly string[]> {
  const file = texts.map((text, index) => {
    const path = join(folder, `example-${index}.yaml`);
    writeFileSync(path, text);
    return path;
  });
  const { text } = await checkFiles({ file, output: 'text' });
  return text.split('\n').filter((line) => !/^\d+ objects, /.test(line) && !NOTHING_RUNS.test(line));
}

test.each(examplesOf('docs/api.md').map((example, index) => ({ index, example })))(
  'tulle check has nothing against example $index of docs/api.md',
  async ({ example }) => {
    expect(await complaintsAbout([example])).toEqual([]);
  },
);

test('tulle check has nothing against the mesh of the README, once its Service has the label', async () => {
  const examples = examplesOf('README.md');
  expect(examples.length).toBeGreaterThan(2);
  const labelled = examples.map((example) =>
    example.replace(
      /(kind: Service\nmetadata:\n {2}name: catalog\n {2}namespace: shop\n)/,
      '$1  labels: { istio.io/use-waypoint: waypoint }\n',
    ),
  );
  expect(await complaintsAbout(labelled)).toEqual([]);
});
