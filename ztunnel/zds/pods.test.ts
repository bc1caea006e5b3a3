import { fstatSync, openSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { PodInfo } from '../worker-messages.ts';
import { createServedPods, type ServedPods } from './pods.ts';

const POD: PodInfo = { uid: 'u-1', name: 'web-1', namespace: 'shop', serviceAccount: 'web' };

/** Any descriptor stands for a namespace here; only its device and inode count. */
const open = (path = '/proc/self/ns/net'): number => openSync(path, 'r');

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}

interface Fixture {
  readonly pods: ServedPods;
  readonly events: string[];
  /** Lets additions fail or succeed. */
  readonly setWorking: (working: boolean) => void;
}

function fixture(): Fixture {
  const events: string[] = [];
  let working = true;
  const pods = createServedPods({
    onAdd: async ({ uid }) => {
      events.push(`add ${uid}`);
      if (!working) throw new Error('port in use');
    },
    onDelete: (uid) => void events.push(`delete ${uid}`),
  });
  return {
    pods,
    events,
    setWorking: (value) => {
      working = value;
    },
  };
}

test('a pod that is named again in the same namespace is left alone', async () => {
  const { pods, events } = fixture();
  const [first, second] = [open(), open()];
  await pods.add(POD, first);
  await pods.add(POD, second);
  expect(events).toEqual(['add u-1']);
  expect([isOpen(first), isOpen(second)]).toEqual([true, false]);
  await pods.delete(POD.uid);
  expect(isOpen(first)).toBe(false);
});

test('another namespace replaces the pod', async () => {
  const { pods, events } = fixture();
  const [first, second] = [open(), open('/proc/self/ns/uts')];
  await pods.add(POD, first);
  await pods.add(POD, second);
  expect(events).toEqual(['add u-1', 'delete u-1', 'add u-1']);
  expect([isOpen(first), isOpen(second)]).toEqual([false, true]);
});

test('a pod that cannot be served is tried again until it can', async () => {
  const { pods, events, setWorking } = fixture();
  setWorking(false);
  await expect(pods.add(POD, open())).rejects.toThrow('port in use');
  expect(pods.pending()).toBe(1);
  expect([...(await pods.retry()).keys()]).toEqual(['u-1']);
  setWorking(true);
  expect((await pods.retry()).size).toBe(0);
  expect(pods.pending()).toBe(0);
  expect(events).toEqual(['add u-1', 'add u-1', 'add u-1']);
});

test('a pod that was never served is forgotten without a word', async () => {
  const { pods, events, setWorking } = fixture();
  setWorking(false);
  const fd = open();
  await expect(pods.add(POD, fd)).rejects.toThrow();
  await pods.deleteAllBut(new Set());
  expect(events).toEqual(['add u-1']);
  expect(isOpen(fd)).toBe(false);
});
