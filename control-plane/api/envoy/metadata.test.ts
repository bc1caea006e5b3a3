import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const API = readFileSync('docs/api.md', 'utf8');

test('every key of our metadata in Envoy resources is in the table of docs/api.md', () => {
  const source = readFileSync('control-plane/api/envoy/metadata.ts', 'utf8');
  const keys = [...source.matchAll(/^ {2}readonly (\w+)\??:/gm)].map(([, key = '']) => key);
  const [, table = ''] = API.split('## Metadata of Envoy resources');
  expect(keys.length).toBeGreaterThan(20);
  expect(keys.filter((key) => !table.includes(`\`${key}\``))).toEqual([]);
});
