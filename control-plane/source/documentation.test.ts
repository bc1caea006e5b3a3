import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { problemsOf } from './testing.ts';

const API = readFileSync('docs/api.md', 'utf8');
const EXAMPLES = [...API.matchAll(/```yaml\n([\s\S]*?)```/g)].map(([, example = '']) => example);

test('every example in docs/api.md is read without a complaint', () => {
  expect(EXAMPLES.length).toBeGreaterThan(0);
  expect(EXAMPLES.flatMap(problemsOf)).toEqual([]);
});

test('every key of our metadata in Envoy resources is in the table of docs/api.md', () => {
  const source = readFileSync('control-plane/api/envoy/metadata.ts', 'utf8');
  const keys = [...source.matchAll(/^ {2}readonly (\w+)\??:/gm)].map(([, key = '']) => key);
  const [, table = ''] = API.split('## Metadata of Envoy resources');
  expect(keys.length).toBeGreaterThan(20);
  expect(keys.filter((key) => !table.includes(`\`${key}\``))).toEqual([]);
});
