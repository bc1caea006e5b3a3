import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BpfMap } from '#bpf/maps.ts';
import { BPFFS, mapPath } from '#bpf/pins.ts';
import { SPLICE_MAPS, SPLICE_OFFSETS, SPLICE_SIZES } from '#bpf/splice-layout.ts';
import { endProcess, startLogged } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, TULLE } from '#test/kit/mesh.ts';
import { PYTHON } from '#test/kit/socket-calls.ts';
import { namespaceYaml, policyYaml } from '#test/kit/yaml.ts';

const PROGRAM = join(import.meta.dirname, '../kit/programs/splice.py');
const PORT = 9300;
const DENY = policyYaml('shop', 'none', `{action: DENY, rules: [{to: [{operation: {ports: ["${PORT}"]}}]}]}`);
/** From the moment at which what cuts a connection has been done; a second of it is for the machine's other work. */
const CUT_MS = 2_000;

/** `shop/web` and `shop/plain` call `shop/catalog`, all on n1. The namespace asks for the kernel splice; `plain` declines. */
let mesh: Mesh;
let catalog: Awaited<ReturnType<Mesh['run']>>;
let web: Awaited<ReturnType<Mesh['run']>>;
let counts: BpfMap;

beforeAll(async () => {
  mesh = await openMesh({
    files: { 'mesh.yaml': namespaceYaml('shop', true, 'tulle.dev/splice: "true"') },
    flags: ['--nodes', 'n1', '--capture', 'ebpf'],
  });
  const idle = { namespace: 'shop', command: ['sleep', 'infinity'] };
  [catalog, web] = await Promise.all([
    mesh.run({ namespace: 'shop', name: 'catalog', command: server(PORT) }, true),
    mesh.run({ ...idle, name: 'web' }, true),
    mesh.run({ ...idle, name: 'plain', labels: { 'tulle.dev/splice': 'false' } }, true),
  ]);
  const [name = ''] = /tulle-[0-9a-f]+/.exec(catalog.cgroup) ?? [];
  const path = mapPath(join(BPFFS, 'tulle', name), 'splice_counts');
  counts = BpfMap.openPinned(path, SPLICE_MAPS.splice_counts);
  await eventually('the catalog answers', async () => 'rest' in (await call('web', 'round-trips', '1')));
});
afterAll(async () => {
  counts?.close();
  await mesh?.[Symbol.asyncDispose]();
});

function server(port: number): readonly string[] {
  return [PYTHON, PROGRAM, 'server', `${port}`];
}

/** What the program says in the end; see there. */
async function call(from: string, action: string, ...args: readonly string[]): Promise<object> {
  return await callAt(catalog.addresses[0], from, action, ...args);
}

async function callAt(
  host: string | undefined,
  from: string,
  action: string,
  ...args: readonly string[]
): Promise<object> {
  const command = [PYTHON, PROGRAM, action, host ?? '', `${PORT}`, ...args];
  const { stdout, stderr } = await mesh.exec(`shop/${from}`, command, 60_000);
  const [last = ''] = stdout.trimEnd().split('\n').slice(-1);
  return last === '' ? { stderr } : (JSON.parse(last) as object);
}

/** Bytes that have gone past the ztunnel on connections that are there now, one number a direction. */
function redirected(): readonly number[] {
  return counts.keys().map((key) => {
    const value = Buffer.alloc(SPLICE_SIZES.spliceCounts);
    return counts.lookup(key, value)
      ? Number(value.readBigUInt64LE(SPLICE_OFFSETS.splice_counts.redirected))
      : 0;
  });
}

/** Runs the program for as long as it takes; `lines` is what it has said so far. */
function start(from: string, host: string | undefined, action: string, ...args: readonly string[]): Started {
  const log = join(mesh.directory, `${action}-${from}-${started++}.log`);
  const command = [PYTHON, PROGRAM, action, host ?? '', `${PORT}`, ...args];
  const child = startLogged([TULLE, 'exec', '--state', mesh.state, `shop/${from}`, '--', ...command], log);
  return {
    child,
    lines: () => readFileSync(log, 'utf8').trimEnd().split('\n'),
    end: () => endProcess(child),
  };
}

interface Started {
  readonly child: ReturnType<typeof startLogged>;
  readonly lines: () => readonly string[];
  readonly end: () => Promise<unknown>;
}
let started = 0;

/** A connection that talks until it is cut; resolves when it does. */
async function hold(
  from: string,
  host = catalog.addresses[0],
): Promise<{ readonly ended: () => Promise<Held>; readonly end: () => Promise<unknown> }> {
  const { child, lines, end } = start(from, host, 'hold');
  await eventually(`${from} holds a connection`, () => lines()[0]?.includes('holding'));
  return {
    end,
    ended: async () => {
      await eventually('it is over', () => child.exitCode !== null || undefined);
      return JSON.parse(lines()[1] ?? '') as Held;
    },
  };
}

/** The error's name, and when that was, in seconds since 1970. */
interface Held {
  readonly ended: string;
  readonly at: number;
}

/** Waits until no connection of before is left. */
async function allOver(): Promise<void> {
  await eventually('all is over', () => redirected().length === 0);
}

/** {@link hold}, and bytes go past the ztunnel both ways. */
async function holdSpliced(host = catalog.addresses[0]): ReturnType<typeof hold> {
  await allOver();
  const held = await hold('web', host);
  await eventually('bytes go past the ztunnel', () => {
    const bytes = redirected();
    return (bytes.length === 2 && bytes.every((each) => each > 1_000)) || undefined;
  });
  return held;
}

function records(): readonly Readonly<Record<string, unknown>>[] {
  return mesh.accessLog('n1').filter(({ hop }) => hop === 'same-node');
}

describe.each([
  ['IPv4', 0],
  ['IPv6', 1],
] as const)('%s', (_, index) => {
  test('what went past the ztunnel is in the record, to the byte', async () => {
    const size = 200_000 + 1_000 * index;
    expect(await callAt(catalog.addresses[index], 'web', 'count', `${size}`)).toEqual({ rest: 0 });
    // The first byte says what the server is to do, the second one waits for the first.
    await eventually(
      'its record',
      () =>
        records().some((record) => record['bytes_recv'] === size + 1 && record['bytes_sent'] === size + 2) ||
        undefined,
    );
  });

  test('bytes go past the ztunnel both ways', async () => {
    await (await holdSpliced(catalog.addresses[index])).end();
  });

  test('a hundred transfers both ways at once are exact', async () => {
    expect(await callAt(catalog.addresses[index], 'web', 'transfers', '100', '8')).toEqual({ wrong: [] });
  });
});

test('an end goes one way, and what comes after it the other', async () => {
  expect(await call('web', 'half-close', '8')).toEqual({ exact: true, rest: 0 });
});

test.each(['edge', 'level'])('a sender that waits to be told of room (%s) is told', async (kind) => {
  const { full, ...result } = (await call('web', 'epoll', kind)) as { readonly full: number };
  expect(result).toEqual({ exact: true });
  expect(full).toBeGreaterThan(0);
  expect(full).toBeLessThan(2_000);
});

test('a reader that is stuck has little more wait for it than plain TCP would', async () => {
  const { taken } = (await call('web', 'stuck')) as { readonly taken: number };
  expect(taken).toBeGreaterThan(0);
  expect(taken).toBeLessThan(24 << 20);
});

test('a reset arrives as one, whether it is waited for or not', async () => {
  expect(await call('web', 'reset-seen')).toEqual({ seen: 'ECONNRESET' });
  const { seen } = (await call('web', 'reset-while-waiting')) as { readonly seen: readonly string[] };
  expect(seen.at(-1)).toBe('ECONNRESET');
});

test('a connection that follows another on its port, unseen by the ztunnel yet, gets its own bytes', async () => {
  const pid = (await mesh.status()).nodes[0]?.ztunnel?.pid ?? 0;
  const go = join(mesh.directory, 'go');
  const { lines, end } = start('web', catalog.addresses[0], 'same-port', web.addresses[0] ?? '', go);
  await eventually('the first is answered', () => lines()[0]?.includes('first'));
  process.kill(pid, 'SIGSTOP');
  try {
    writeFileSync(go, '');
    await eventually('the second has spoken', () => lines()[1]?.includes('second'));
  } finally {
    process.kill(pid, 'SIGCONT');
  }
  expect(await eventually('an answer', () => lines()[2])).toBe('{"echo": "other"}');
  await end();
});

test('policy cuts it at once, and a pod that declines has never been spliced', async () => {
  await allOver();
  const plain = await hold('plain');
  expect(redirected()).toEqual([]);
  const web = await holdSpliced();
  mesh.write('deny.yaml', DENY);
  const deniedAt = Date.now();
  for (const { ended, at } of [await web.ended(), await plain.ended()]) {
    expect(ended).toMatch(/Reset|BrokenPipe/);
    expect(at * 1000 - deniedAt).toBeLessThan(CUT_MS);
  }
  const denied = (): readonly unknown[] =>
    records().filter(({ error }) => /policy rejection/.test(String(error)));
  await eventually('the records say why', () => denied().length >= 2 || undefined);
  mesh.remove('deny.yaml');
  await eventually('it is let in again', async () => 'rest' in (await call('web', 'round-trips', '1')));
});

test('a ztunnel that is killed takes it along, and the next one splices again', async () => {
  const web = await holdSpliced();
  const pid = (await mesh.status()).nodes[0]?.ztunnel?.pid ?? 0;
  process.kill(pid, 'SIGKILL');
  const killedAt = Date.now();
  expect((await web.ended()).at * 1000 - killedAt).toBeLessThan(CUT_MS);
  // Its entries stay until others push them out.
  for (const key of counts.keys()) counts.delete(key);
  await mesh.until(
    'another is ready',
    ({ nodes }) => nodes[0]?.ztunnel?.ready === true && nodes[0].ztunnel.pid !== pid,
  );
  await eventually('the catalog answers', async () => 'rest' in (await call('web', 'round-trips', '1')));
  await (await holdSpliced()).end();
});

test('a pod that ends takes it along', async () => {
  const web = await holdSpliced();
  await endProcess(catalog.child, 'SIGKILL');
  const killedAt = Date.now();
  expect((await web.ended()).at * 1000 - killedAt).toBeLessThan(CUT_MS);
});
