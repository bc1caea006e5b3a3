import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { FabricNode } from './fabric.ts';
import { askShortages } from './shortage-problems.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'shortages-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const NODES: readonly FabricNode[] = [
  { name: 'n1', number: 1, external: false },
  { name: 'c', number: 2, external: true },
];

async function answered(status: number, body: unknown): Promise<readonly { readonly message: string }[]> {
  mkdirSync(join(folder, 'run', 'n1'), { recursive: true });
  const path = join(folder, 'run', 'n1', 'ztunnel.sock');
  const server = createServer((_, response) => response.writeHead(status).end(JSON.stringify(body)));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const asked = await askShortages({ path: folder, mesh: 'tulle-123456' }, NODES);
  server.close();
  return asked;
}

const SHORTAGE = {
  ...{ shortage: 'descriptors', pod: 'shop/web', count: 7, error: 'all 64 descriptors are in use' },
  ...{ since: '2026-01-01T12:00:00.123Z', last: '2026-01-01T12:00:05.000Z' },
};

test('what a ztunnel refuses for want of something is a problem of its node, whose pod it is about', async () => {
  expect(await answered(200, [SHORTAGE])).toEqual([
    expect.objectContaining({
      object: 'ztunnel/n1',
      message:
        'connections of shop/web are refused for want of descriptors since 2026-01-01T12:00:00Z: all 64 descriptors are in use',
      severity: 'warning',
    }),
  ]);
});

test('of very many the latest are told', async () => {
  const many = Array.from({ length: 100 }, (_, index) => ({ ...SHORTAGE, pod: `shop/p${index}` }));
  const problems = await answered(200, many);
  expect(problems).toHaveLength(10);
  expect(problems.at(-1)?.message).toContain('shop/p99 ');
});

test.each([
  { when: 'it is of another make', status: 404, body: 'not found' },
  { when: 'it says something else', status: 200, body: { shortage: 'descriptors' } },
])('nothing is a problem when $when', async ({ status, body }) => {
  expect(await answered(status, body)).toEqual([]);
});

test('nothing is a problem of one that is down', async () => {
  expect(await askShortages({ path: folder, mesh: 'tulle-123456' }, NODES)).toEqual([]);
});
