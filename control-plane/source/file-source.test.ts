import { once } from 'node:events';
import {
  appendFile,
  mkdir,
  mkdtemp,
  readFile,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openFileSource } from './file-source.ts';
import type { ObjectSet } from './objects.ts';
import type { Source } from './source.ts';

let state: string;
let mesh: string;
const open = new Set<Source>();

beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), 'tulle-files-'));
  mesh = join(state, 'mesh');
  await mkdir(mesh);
});

afterEach(async () => {
  for (const source of open) await source[Symbol.asyncDispose]();
  open.clear();
  await rm(state, { recursive: true });
});

async function start(...paths: readonly string[]): Promise<Source> {
  const source = await openFileSource({ paths: paths.length > 0 ? paths : [mesh], stateDirectory: state });
  open.add(source);
  return source;
}

async function stop(source: Source): Promise<void> {
  open.delete(source);
  await source[Symbol.asyncDispose]();
}

async function until(source: Source, isWanted: (set: ObjectSet) => boolean): Promise<ObjectSet> {
  const changes = source.changes(AbortSignal.timeout(10_000));
  if (isWanted(source.current())) return source.current();
  for await (const set of changes) if (isWanted(set)) return set;
  throw new Error('did not come about');
}

function keys({ objects }: ObjectSet): readonly string[] {
  return [...objects.keys()];
}

function namespace(name: string): string {
  return `apiVersion: v1\nkind: Namespace\nmetadata: {name: ${name}}\n---\n`;
}

function policy(action: string, app = 'web'): string {
  const selector = `selector: {matchLabels: {app: ${app}}}`;
  return `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {action: ${action}, ${selector}, rules: [{}]}\n---\n`;
}

function actionOf({ objects }: ObjectSet): unknown {
  const object = objects.get('AuthorizationPolicy shop/p');
  return object?.kind === 'AuthorizationPolicy' ? object.spec.action : undefined;
}

test('a restart beside a broken object changes nothing', async () => {
  await writeFile(join(mesh, 'a.yaml'), namespace('a') + policy('DENY'));
  await stop(await start());
  await writeFile(join(mesh, 'a.yaml'), namespace('a') + policy('DENYY'));
  const set = (await start()).current();
  expect(keys(set)).toEqual(['Namespace a', 'AuthorizationPolicy shop/p']);
  expect(actionOf(set)).toBe('DENY');
  expect(set.broken).toEqual([]);
  expect(set.problems).toMatchObject([
    { path: 'spec.action', effect: 'the last good version stays in force' },
  ]);
});

test('a restart beside a file that does not parse keeps all that was in it', async () => {
  await writeFile(join(mesh, 'a.yaml'), namespace('a') + policy('DENY') + namespace('b'));
  await stop(await start());
  await writeFile(join(mesh, 'a.yaml'), `${namespace('c')}kind: "\n---\n${policy('ALLOW')}`);
  const set = (await start()).current();
  expect([...keys(set)].sort()).toEqual([
    'AuthorizationPolicy shop/p',
    'Namespace a',
    'Namespace b',
    'Namespace c',
  ]);
  expect(actionOf(set)).toBe('DENY');
});

test('what was removed from a good file while nothing ran is gone', async () => {
  await writeFile(join(mesh, 'a.yaml'), namespace('a') + namespace('b'));
  await writeFile(join(mesh, 'b.yaml'), namespace('c'));
  await stop(await start());
  await writeFile(join(mesh, 'a.yaml'), namespace('b'));
  await rm(join(mesh, 'b.yaml'));
  expect(keys((await start()).current())).toEqual(['Namespace b']);
});

test('a policy that was never good denies what it selects, and no longer once it is', async () => {
  await writeFile(join(mesh, 'a.yaml'), policy('DENYY', 'cart'));
  const source = await start();
  const { broken, problems } = source.current();
  expect(broken).toMatchObject([
    {
      kind: 'AuthorizationPolicy',
      name: 'p',
      namespace: 'shop',
      selector: { matchLabels: new Map([['app', 'cart']]) },
    },
  ]);
  expect(problems).toMatchObject([{ effect: 'denies what it selects' }]);
  await writeFile(join(mesh, 'a.yaml'), policy('DENY', 'cart'));
  const mended = await until(source, (set) => set.broken.length === 0);
  expect(mended.problems).toEqual([]);
  expect(actionOf(mended)).toBe('DENY');
});

test('an object that moves to another file and breaks on the way keeps its last good version', async () => {
  await writeFile(join(mesh, 'a.yaml'), policy('DENY'));
  await stop(await start());
  await rename(join(mesh, 'a.yaml'), join(mesh, 'b.yaml'));
  await writeFile(join(mesh, 'b.yaml'), policy('DENYY'));
  const source = await start();
  expect(actionOf(source.current())).toBe('DENY');
  await rm(join(mesh, 'b.yaml'));
  await until(source, (set) => set.objects.size === 0);
});

test('a folder that is not there keeps what was in it, and is read when it is there again', async () => {
  await writeFile(join(mesh, 'a.yaml'), namespace('a'));
  const source = await start();
  await rename(mesh, `${mesh}.away`);
  const away = await until(source, (set) => set.problems.length > 0);
  expect(keys(away)).toEqual(['Namespace a']);
  expect(away.problems).toMatchObject([{ object: mesh, effect: 'the last good version stays in force' }]);
  await mkdir(mesh);
  await writeFile(join(mesh, 'b.yaml'), namespace('b'));
  const back = await until(source, (set) => set.problems.length === 0);
  expect(keys(back)).toEqual(['Namespace b']);
});

test('a path that appears later is read then', async () => {
  const path = join(state, 'later/deep');
  const source = await start(path);
  expect(source.current().problems).toMatchObject([
    { object: path, message: 'deep is not there', effect: 'ignored' },
  ]);
  await mkdir(path, { recursive: true });
  await writeFile(join(path, 'a.yaml'), namespace('a'));
  expect(keys(await until(source, (set) => set.objects.size > 0))).toEqual(['Namespace a']);
});

test('a single file is followed through being replaced', async () => {
  const file = join(mesh, 'only.txt');
  await writeFile(file, namespace('a'));
  const source = await start(file);
  for (const name of ['b', 'c']) {
    await writeFile(`${file}.tmp`, namespace(name));
    await rename(`${file}.tmp`, file);
    await until(source, (set) => set.objects.has(`Namespace ${name}`));
  }
  expect(keys(source.current())).toEqual(['Namespace c']);
});

test('folders in the folder are followed as they come and go', async () => {
  const source = await start();
  await mkdir(join(mesh, 'x/y'), { recursive: true });
  await writeFile(join(mesh, 'x/y/a.yaml'), namespace('a'));
  await until(source, (set) => set.objects.has('Namespace a'));
  await writeFile(join(mesh, 'x/y/b.yml'), namespace('b'));
  await until(source, (set) => set.objects.has('Namespace b'));
  await rm(join(mesh, 'x'), { recursive: true });
  await until(source, (set) => set.objects.size === 0);
});

test('a file that is empty for a moment is not taken for one without objects', async () => {
  const file = join(mesh, 'a.yaml');
  await writeFile(file, namespace('a') + namespace('b'));
  const source = await start();
  const seen: (readonly string[])[] = [];
  const abort = new AbortController();
  const watching = (async () => {
    for await (const set of source.changes(abort.signal)) seen.push(keys(set));
  })();
  await truncate(file);
  // A second file shows that the folder has been read in between.
  await writeFile(join(mesh, 'b.yaml'), namespace('c'));
  await until(source, (set) => set.objects.has('Namespace c'));
  await appendFile(file, namespace('a'));
  await until(source, (set) => !set.objects.has('Namespace b'));
  abort.abort();
  await watching;
  expect(seen.every((one) => one.includes('Namespace a'))).toBe(true);
});

test('a file that stays empty has no objects any more', async () => {
  await writeFile(join(mesh, 'a.yaml'), namespace('a'));
  const source = await start();
  await truncate(join(mesh, 'a.yaml'));
  await until(source, (set) => set.objects.size === 0);
});

test('links that go round in circles, sockets and links to nowhere are met with a message at most', async () => {
  await symlink(mesh, join(mesh, 'self'));
  await symlink(join(mesh, 'loop.yaml'), join(mesh, 'loop.yaml'));
  await symlink('/nowhere', join(mesh, 'nowhere.yaml'));
  const server = createServer().listen(join(mesh, 'socket.yaml'));
  await once(server, 'listening');
  await writeFile(join(mesh, 'a.yaml'), namespace('a'));
  const { objects, problems } = (await start()).current();
  expect([...objects.keys()]).toEqual(['Namespace a']);
  expect(problems.map(({ message }) => message).sort()).toEqual([
    'loop.yaml is a symbolic link that leads to itself',
    'nowhere.yaml is not there',
    'socket.yaml is not a regular file',
  ]);
  server.close();
});

test('a file that is too large keeps what was in it', async () => {
  await writeFile(join(mesh, 'a.yaml'), namespace('a'));
  const source = await start();
  await truncate(join(mesh, 'a.yaml'), 17 * 1024 * 1024);
  const { objects, problems } = await until(source, (set) => set.problems.length > 0);
  expect([...objects.keys()]).toEqual(['Namespace a']);
  expect(problems).toMatchObject([{ message: 'a.yaml is larger than 16 MiB; split it' }]);
});

test('of two objects with one name the first counts, and both places are named', async () => {
  await writeFile(join(mesh, 'a.yaml'), policy('DENY'));
  await writeFile(join(mesh, 'b.yaml'), namespace('b') + policy('ALLOW') + namespace('b'));
  const set = (await start()).current();
  expect(actionOf(set)).toBe('DENY');
  expect(set.problems).toMatchObject([
    {
      object: 'AuthorizationPolicy shop/p',
      position: { file: join(mesh, 'b.yaml'), line: 5 },
      message: `is there twice, first at ${join(mesh, 'a.yaml')}:1:1; remove one of them`,
      effect: 'the first stays in force',
    },
  ]);
});

test('what is kept is of the paths that are given, and of no others', async () => {
  await writeFile(join(mesh, 'a.yaml'), namespace('a'));
  await stop(await start());
  const other = join(state, 'other');
  const source = await start(other);
  expect(keys(source.current())).toEqual([]);
});

test('a damaged store of last good versions is reported, and written anew', async () => {
  await mkdir(join(state, 'config'));
  await writeFile(join(state, 'config/objects.json'), '{"version": 1, "objects": [{}]}');
  await writeFile(join(mesh, 'a.yaml'), namespace('a'));
  const { objects, problems } = (await start()).current();
  expect(objects.size).toBe(1);
  expect(problems).toMatchObject([{ severity: 'warning', effect: 'the last good versions are not known' }]);
  expect(JSON.parse(await readFile(join(state, 'config/objects.json'), 'utf8'))).toMatchObject({
    objects: [{ path: join(mesh, 'a.yaml') }],
  });
});

test('a store that cannot be written is reported, and the rest goes on', async () => {
  await writeFile(join(state, 'config'), 'a file where the folder should be');
  await writeFile(join(mesh, 'a.yaml'), namespace('a'));
  const { objects, problems } = (await start()).current();
  expect(objects.size).toBe(1);
  expect(problems.at(-1)).toMatchObject({ effect: 'the last good versions will not outlive a restart' });
});
