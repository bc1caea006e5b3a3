import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { openFileSource } from './file-source.ts';
import { openLocalSource } from './local-source.ts';
import type { ObjectSet } from './objects.ts';
import { readText } from './read-text.ts';
import { settle } from './settle.ts';
import { mergeObjectSets, type Source } from './source.ts';

const closers: (() => PromiseLike<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tulle-source-'));
  closers.push(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Writes as an editor does that replaces files. */
async function write(file: string, text: string): Promise<void> {
  await writeFile(`${file}.next`, text);
  await rename(`${file}.next`, file);
}

function node(name: string, labels: Readonly<Record<string, unknown>> = {}): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'Node', metadata: { name, labels } });
}

async function until(source: Source, isWanted: (set: ObjectSet) => boolean): Promise<ObjectSet> {
  const changes = source.changes(AbortSignal.timeout(10_000));
  if (isWanted(source.current())) return source.current();
  for await (const set of changes) if (isWanted(set)) return set;
  throw new Error('did not come about');
}

const SOURCES: readonly {
  name: string;
  open(state: string): Promise<Source>;
  folder(state: string): string;
}[] = [
  {
    name: 'of files',
    open: (state) => openFileSource({ paths: [join(state, 'mesh')], stateDirectory: state }),
    folder: (state) => join(state, 'mesh'),
  },
  {
    name: 'of local workloads',
    open: (state) => openLocalSource({ stateDirectory: state }),
    folder: (state) => join(state, 'nodes'),
  },
];

describe.each(SOURCES)('a source $name', ({ open, folder }) => {
  async function openWith(files: Readonly<Record<string, string>>): Promise<{ source: Source; at: string }> {
    const state = await makeFolder();
    const at = folder(state);
    await mkdir(at, { recursive: true });
    for (const [name, text] of Object.entries(files)) await write(join(at, name), text);
    const source = await open(state);
    closers.push(() => source[Symbol.asyncDispose]());
    return { source, at };
  }

  test('holds from the start what is written', async () => {
    const { source } = await openWith({ 'n1.json': node('n1'), 'n2.json': node('n2') });
    expect([...source.current().objects.keys()]).toEqual(['Node n1', 'Node n2']);
    expect(source.current().problems).toEqual([]);
  });

  test('tells of objects that come, change and go', async () => {
    const { source, at } = await openWith({ 'n1.json': node('n1') });
    await write(join(at, 'n2.json'), node('n2'));
    await until(source, ({ objects }) => objects.has('Node n2'));
    await write(join(at, 'n2.json'), node('n2', { zone: 'z' }));
    await until(source, ({ objects }) => objects.get('Node n2')?.metadata.labels.get('zone') === 'z');
    await rm(join(at, 'n2.json'));
    const { objects } = await until(source, (set) => !set.objects.has('Node n2'));
    expect([...objects.keys()]).toEqual(['Node n1']);
  });

  test('keeps the last good version of an object that is wrong', async () => {
    const { source, at } = await openWith({ 'n1.json': node('n1', { zone: 'z' }) });
    await write(join(at, 'n1.json'), node('n1', { zone: 7 }));
    const { objects, problems } = await until(source, (set) => set.problems.length > 0);
    expect(objects.get('Node n1')?.metadata.labels.get('zone')).toBe('z');
    expect(problems).toMatchObject([
      { object: 'Node n1', path: 'metadata.labels.zone', effect: 'the last good version stays in force' },
    ]);
  });

  test('keeps what was in a file that does not parse any more', async () => {
    const { source, at } = await openWith({ 'n1.json': node('n1') });
    await write(join(at, 'n1.json'), '{"apiVersion": ');
    const { objects } = await until(source, (set) => set.problems.length > 0);
    expect([...objects.keys()]).toEqual(['Node n1']);
  });

  test('ends its changes when the signal is aborted', async () => {
    const { source } = await openWith({});
    const abort = new AbortController();
    const changes = source.changes(abort.signal)[Symbol.asyncIterator]();
    const next = changes.next();
    abort.abort();
    expect(await next).toEqual({ done: true, value: undefined });
  });

  test('ends its changes when it is disposed of', async () => {
    const { source } = await openWith({});
    const next = source.changes(new AbortController().signal)[Symbol.asyncIterator]().next();
    await source[Symbol.asyncDispose]();
    expect(await next).toMatchObject({ done: true });
  });

  test('tells a slow reader only the last of several changes', async () => {
    const { source, at } = await openWith({});
    const slow = source.changes(AbortSignal.timeout(10_000))[Symbol.asyncIterator]();
    for (const name of ['n1', 'n2', 'n3']) {
      await write(join(at, `${name}.json`), node(name));
      await until(source, ({ objects }) => objects.has(`Node ${name}`));
    }
    const { value } = await slow.next();
    expect(value?.objects.size).toBe(3);
  });
});

function pod(name: string, annotations: Readonly<Record<string, string>> = {}): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'shop', annotations },
    spec: {},
  });
}

const REDIRECTION = 'ambient.istio.io/redirection';

test('a local pod is redirected as its redirection file says', async () => {
  const state = await makeFolder();
  await mkdir(join(state, 'pods'));
  await write(join(state, 'pods/shop_web-1.json'), pod('web-1', { [REDIRECTION]: 'enabled', own: 'x' }));
  const source = await openLocalSource({ stateDirectory: state });
  closers.push(() => source[Symbol.asyncDispose]());
  const annotations = (set: ObjectSet): unknown => set.objects.get('Pod shop/web-1')?.metadata.annotations;
  expect(annotations(source.current())).toEqual(new Map([['own', 'x']]));

  await write(join(state, 'pods/shop_web-1.redirection'), 'pending');
  const value = (set: ObjectSet): string | undefined =>
    set.objects.get('Pod shop/web-1')?.metadata.annotations.get(REDIRECTION);
  await until(source, (set) => value(set) === 'pending');
  await write(join(state, 'pods/shop_web-1.redirection'), 'enabled\n');
  await until(source, (set) => value(set) === 'enabled');
  await rm(join(state, 'pods/shop_web-1.redirection'));
  await until(source, (set) => value(set) === undefined);
});

function setOf(file: string, ...objects: readonly string[]): ObjectSet {
  const text = objects.join('\n---\n');
  return settle([{ path: file, ...readText(file, text), findings: [] }], new Map()).set;
}

test('of a pod that is written and also runs here, the one that runs counts', () => {
  const merged = mergeObjectSets(
    setOf('mesh.yaml', pod('web-1', { from: 'file' }), pod('web-2')),
    setOf('state', pod('web-1')),
  );
  expect([...merged.objects.keys()]).toEqual(['Pod shop/web-1', 'Pod shop/web-2']);
  expect(merged.objects.get('Pod shop/web-1')?.metadata.annotations.size).toBe(0);
  expect(merged.problems).toMatchObject([
    {
      object: 'Pod shop/web-1',
      position: { file: 'mesh.yaml', line: 1 },
      severity: 'error',
      effect: 'the workload that runs here counts',
    },
  ]);
});

test('a node that is written gives its labels to the one that runs here', () => {
  const merged = mergeObjectSets(
    setOf('a.yaml', node('n1', { zone: 'z1' })),
    setOf('state', node('n1', { zone: '', os: 'linux' })),
  );
  expect(merged.problems).toEqual([]);
  expect([...(merged.objects.get('Node n1')?.metadata.labels ?? [])]).toEqual([
    ['zone', 'z1'],
    ['os', 'linux'],
  ]);
});
