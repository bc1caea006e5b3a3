import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createStateFolder, supervisorSocket } from './local/state-folder.ts';
import { callSupervisor } from './supervisor-client.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-client-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

test.each([
  ['without a word', (): undefined => undefined],
  ['in the middle of an answer', (): string => 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"half'],
])('a mesh that goes down while it is asked, %s, does not run', async (_how, answer) => {
  const state = createStateFolder(join(folder, 'state'));
  mkdirSync(dirname(supervisorSocket(state)), { recursive: true });
  const server = createServer((socket) => {
    socket.once('data', () => {
      const text = answer();
      if (text === undefined) socket.destroy();
      else socket.write(text, () => socket.destroy());
    });
  });
  server.listen(supervisorSocket(state));
  await once(server, 'listening');
  await expect(callSupervisor(state.path, { path: '/status' })).rejects.toMatchObject({
    message: `the mesh of ${state.path} went down before it had answered, or has no descriptors left`,
    exitCode: 3,
  });
  server.close();
});
