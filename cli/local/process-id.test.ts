import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { findProcess, getProcess, isAlive, sessionOf } from './process-id.ts';
import { endProcess, signalProcess } from './process-signal.ts';

test('a running process is found and alive', () => {
  expect(isAlive(getProcess(process.pid))).toBe(true);
});

test('a later process with the same number is another one', () => {
  const self = getProcess(process.pid);
  const earlier = { pid: self.pid, startTime: self.startTime - 1 };
  expect(isAlive(earlier)).toBe(false);
  expect(signalProcess(earlier, 'SIGKILL')).toBe(false);
});

test('a process that takes no notice of SIGTERM is killed', async () => {
  const child = spawn('sh', ['-c', "trap '' TERM; echo ready; while :; do sleep 1; done"], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await once(child.stdout, 'data');
  const exited = once(child, 'exit');
  await endProcess(getProcess(child.pid ?? 0), 100);
  expect(await exited).toEqual([null, 'SIGKILL']);
  expect(findProcess(child.pid ?? 0)).toBeUndefined();
});

test('a process in a session of its own is its first', async () => {
  const child = spawn('sleep', ['60'], { detached: true });
  await once(child, 'spawn');
  expect(sessionOf(child.pid ?? 0)).toBe(child.pid);
  expect(signalProcess(getProcess(child.pid ?? 0), 'SIGKILL')).toBe(true);
  await once(child, 'exit');
  expect(sessionOf(child.pid ?? 0)).toBeUndefined();
});
