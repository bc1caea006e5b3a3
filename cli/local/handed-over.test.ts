import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { askHandedOver, handedOverText } from './handed-over.ts';
import type { StateFolder } from './state-folder.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'handed-over-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function state(): StateFolder {
  return { path: folder, mesh: 'tulle-123456' };
}

async function answered(status: number, body: string): Promise<unknown> {
  mkdirSync(join(folder, 'run', 'n1'), { recursive: true });
  const path = join(folder, 'run', 'n1', 'ztunnel.sock');
  const server = createServer((_, response) => response.writeHead(status).end(body));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const asked = await askHandedOver(state(), 'n1');
  server.close();
  return asked;
}

test('kinds are added up', async () => {
  const body = JSON.stringify({
    isOver: true,
    met: { plaintext: { handed_over: 2 }, 'same-node': { handed_over: 3, drained_closing: 1 } },
  });
  expect(await answered(200, body)).toEqual({
    isOver: true,
    handedOver: { handed_over: 5, drained_closing: 1 },
  });
});

test.for([
  { when: 'it is of another make', status: 404, body: 'not found' },
  { when: 'it says something else', status: 200, body: '{"isOver": true, "met": {"plaintext": "many"}}' },
])('nothing is known when $when', async ({ status, body }) => {
  expect(await answered(status, body)).toBeUndefined();
});

test('nothing is known of one that is down', async () => {
  expect(await askHandedOver(state(), 'n1')).toBeUndefined();
});

test.for([
  { handedOver: {}, text: '0 handed over' },
  { handedOver: { handed_over: 54 }, text: '54 handed over' },
  {
    handedOver: { handed_over: 52, drained_kernel_splice: 2, drained_closing: 1, reset_denied: 1 },
    text: '52 handed over, 3 left to end (closing 1, kernel_splice 2), 1 reset (denied 1)',
  },
])('$text', ({ handedOver, text }) => {
  expect(handedOverText(handedOver)).toBe(text);
});
