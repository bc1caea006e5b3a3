import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ADDRESS_TYPE } from '#api/resource.ts';
import { eventually } from '#test/kit/eventually.ts';
import { followSources, type MeshLoop } from './mesh-loop.ts';
import { isOnNode, type MeshState, nextMeshState } from './mesh-state.ts';
import { createLatest } from './source/latest.ts';
import type { MeshObject, ObjectSet } from './source/objects.ts';
import { parseFiles } from './source/parse-files.ts';
import type { Source } from './source/source.ts';
import { openVipFile, type VipFile } from './vip-file.ts';

const EMPTY: ObjectSet = { objects: new Map(), broken: [], problems: [], unread: [] };
let directory: string;
let vips: VipFile;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tulle-loop-'));
  vips = openVipFile(join(directory, 'config', 'vips.json'));
});

afterEach(() => rmSync(directory, { recursive: true }));

test('a change that makes deriving throw leaves the last state in force, and the next good one takes over', async () => {
  const files = source();
  const states: MeshState[] = [];
  await using loop = follow(files, states);
  await eventually('the first state is confirmed', () => states.length === 1);

  files.set({ ...EMPTY, objects: new Map([['bad', unreadable()]]) });
  await eventually('the problem is said', () => loop.problems().length === 1);
  expect(loop.problems()).toMatchObject([
    { message: 'cannot be looked at', effect: 'the last configuration stays in force' },
  ]);
  expect(loop.state()).toBe(states.at(-1));

  files.set(EMPTY);
  await eventually('the problem is gone', () => loop.problems().length === 0);
  expect(states.length).toBeGreaterThan(1);
});

test('a source that fails is followed again', async () => {
  const files = source();
  let failures = 0;
  const failing: Source = {
    ...files,
    changes: (signal) => {
      failures += 1;
      if (failures === 1) throw new Error('too many files');
      return files.changes(signal);
    },
  };
  await using loop = follow(failing, []);
  await eventually('the problem is said', () =>
    loop.problems().some(({ message }) => message === 'too many files'),
  );
  await eventually('it is followed again', () => failures === 2);
  files.set(EMPTY);
  await eventually('the problem is gone', () => loop.problems().length === 0);
});

test('an identity is on a node while a workload there has it', async () => {
  const objects = await parseFiles([join(import.meta.dirname, '../test/fixtures/istiod/objects.yaml')]);
  const state = nextMeshState(objects, { vips, previous: undefined, trustDomain: undefined, nowMs: 0 });
  const web = { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'web' };
  expect(isOnNode(state, 'n1', web)).toBe(true);
  expect(isOnNode(state, 'n2', web)).toBe(false);
  expect(isOnNode(state, 'n1', { ...web, trustDomain: 'other' })).toBe(false);
  expect(isOnNode(undefined, 'n1', web)).toBe(false);
});

test('the same objects give the same served snapshot, with the same addresses after a restart', async () => {
  const objects = await parseFiles([join(import.meta.dirname, '../test/fixtures/istiod/objects.yaml')]);
  const first = nextMeshState(objects, { vips, previous: undefined, trustDomain: undefined, nowMs: 0 });
  const again = nextMeshState(objects, { vips, previous: first, trustDomain: 'cluster.local', nowMs: 0 });
  expect(again.served).toBe(first.served);

  const reopened = openVipFile(join(directory, 'config', 'vips.json'));
  const restarted = nextMeshState(objects, {
    vips: reopened,
    previous: undefined,
    trustDomain: undefined,
    nowMs: 0,
  });
  const versions = (state: MeshState): unknown =>
    [...state.served.nodes[ADDRESS_TYPE]].map(([name, { version }]) => [name, version]);
  expect(versions(restarted)).toEqual(versions(first));
});

function follow(files: Source, states: MeshState[]): MeshLoop {
  return followSources({
    files,
    local: source(),
    stores: { vips },
    first: nextMeshState(EMPTY, { vips, previous: undefined, trustDomain: undefined, nowMs: 0 }),
    trustDomain: 'cluster.local',
    onState: (state) => states.push(state),
    logger: pino({ level: 'silent' }),
  });
}

function source(): Source & { readonly set: (objects: ObjectSet) => void } {
  const latest = createLatest(EMPTY);
  return {
    current: latest.current,
    changes: latest.changes,
    set: latest.set,
    [Symbol.asyncDispose]: async () => latest.end(),
  };
}

/** An object that is not what its type says. */
function unreadable(): MeshObject {
  return new Proxy({} as MeshObject, {
    get: () => {
      throw new Error('cannot be looked at');
    },
  });
}
