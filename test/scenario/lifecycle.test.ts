import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { endProcess, mustRun, runCommand, startLogged } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, TULLE } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { tracesOf } from '#test/kit/traces.ts';
import { namespaceYaml, serviceYaml } from '#test/kit/yaml.ts';

const FILES = { 'mesh.yaml': namespaceYaml('shop', true) + serviceYaml('shop', 'catalog') };
const open: Mesh[] = [];

async function openTracked(): Promise<Mesh> {
  const mesh = await openMesh({ files: FILES });
  open.push(mesh);
  return mesh;
}

afterEach(async () => {
  for (const mesh of open.splice(0)) await mesh[Symbol.asyncDispose]();
});

/** What the host itself is set up with. */
async function host(): Promise<string> {
  const commands = [
    ['ip', '-o', 'link'],
    ['ip', 'rule'],
    ['ip', 'route', 'show', 'table', 'all'],
    ['nft', 'list', 'ruleset'],
  ];
  return (await Promise.all(commands.map((command) => mustRun(command)))).join('\n');
}

let before: string;
beforeAll(async () => {
  before = await host();
});
afterAll(async () => {
  expect(await host()).toBe(before);
});

test('a second mesh runs beside the first, with the same names, and neither sees the other', async () => {
  const [first, second] = await Promise.all([openTracked(), openTracked()]);
  const labels = { app: 'catalog' };
  await first.run({ namespace: 'shop', name: 'catalog-1', labels, command: serverCommand('first') }, true);
  await second.run({ namespace: 'shop', name: 'catalog-1', labels, command: serverCommand('second') }, true);
  for (const [mesh, name] of [
    [first, 'first'],
    [second, 'second'],
  ] as const) {
    await mesh.run({ namespace: 'shop', name: 'web-1', command: ['sleep', 'infinity'] }, true);
    await eventually(`${name} answers itself`, async () => {
      const { stdout } = await mesh.exec('shop/web-1', [
        'curl',
        '-sS',
        '-m',
        '5',
        'http://catalog.shop:8080/',
      ]);
      return (JSON.parse(stdout) as { name: string }).name === name;
    });
  }
});

test('down leaves nothing behind, also when everything was killed', async () => {
  const mesh = await openTracked();
  await mesh.run(
    { namespace: 'shop', name: 'catalog-1', labels: { app: 'catalog' }, command: serverCommand('c') },
    true,
  );
  const { controlPlane, nodes } = await mesh.status();
  expect((await tracesOf(mesh.state)).length).toBeGreaterThan(0);
  mesh.up.kill('SIGKILL');
  for (const pid of [controlPlane.pid, ...nodes.map((node) => node.ztunnel?.pid ?? 0)].filter(
    (one) => one > 0,
  )) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended with its supervisor.
    }
  }
  expect((await mesh.tulle('down')).code).toBe(0);
  await eventually('nothing is left', async () => (await tracesOf(mesh.state)).length === 0);
  expect((await mesh.tulle('down')).code).toBe(0);
});

test('a copy of a state folder does not take over what runs for the other', async () => {
  const mesh = await openTracked();
  const pids = async (): Promise<readonly unknown[]> => {
    const { controlPlane, nodes } = await mesh.until('the status', () => true);
    return [controlPlane.pid, ...nodes.map(({ ztunnel }) => ztunnel?.pid)];
  };
  const own = await pids();
  const copy = join(mesh.directory, 'copy');
  await mustRun(['cp', '-a', mesh.state, copy]);
  const log = join(mesh.directory, 'up-copy.log');
  const up = startLogged([TULLE, 'up', '--state', copy, '-f', join(mesh.directory, 'mesh')], log);
  try {
    await eventually('mesh ready', () => readFileSync(log, 'utf8').includes('mesh ready'), 40_000);
    expect(readFileSync(log, 'utf8')).not.toContain('still runs');
    expect(await pids()).toEqual(own);
  } finally {
    await endProcess(up);
    await runCommand([TULLE, 'down', '--state', copy]);
  }
});

test('after a crash the next up adopts workloads whose run still lives, and sweeps the rest', async () => {
  const mesh = await openTracked();
  const kept = await mesh.run(
    { namespace: 'shop', name: 'catalog-1', labels: { app: 'catalog' }, command: serverCommand('kept') },
    true,
  );
  const lost = await mesh.run({ namespace: 'shop', name: 'lost-1', command: ['sleep', 'infinity'] }, true);
  mesh.up.kill('SIGKILL');
  lost.child.kill('SIGKILL');
  await endProcess(mesh.up);
  const again = startLogged(
    [TULLE, 'up', '--state', mesh.state, '-f', join(mesh.directory, 'mesh')],
    join(mesh.directory, 'up-2.log'),
  );
  try {
    await eventually(
      'mesh ready',
      () => readFileSync(join(mesh.directory, 'up-2.log'), 'utf8').includes('mesh ready'),
      40_000,
    );
    const status = await mesh.until('the workload is adopted', ({ workloads }) =>
      workloads.some(({ enrolled }) => enrolled),
    );
    expect(status.workloads.map(({ name, pid }) => ({ name, pid }))).toEqual([
      { name: 'catalog-1', pid: kept.pid },
    ]);
    await mesh.run({ namespace: 'shop', name: 'web-1', command: ['sleep', 'infinity'] }, true);
    await eventually('the adopted workload answers', async () => {
      const { stdout } = await mesh.exec('shop/web-1', [
        'curl',
        '-sS',
        '-m',
        '5',
        'http://catalog.shop:8080/',
      ]);
      return stdout.includes('kept');
    });
  } finally {
    await endProcess(kept.child);
    await endProcess(again);
  }
});

test('a state folder in use is refused with the process that uses it', async () => {
  const mesh = await openTracked();
  const { code, stdout, stderr } = await runCommand([TULLE, 'up', '--state', mesh.state]);
  expect(code).toBe(1);
  expect(stdout + stderr).toContain(`${mesh.up.pid}`);
});

test('exit codes: 0 done, 1 refused, 2 usage, 3 not running', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-test-'));
  const state = join(directory, 'state');
  mkdirSync(state);
  try {
    const code = async (...args: string[]): Promise<number> => (await runCommand([TULLE, ...args])).code;
    expect(await code('status', '--state', state)).toBe(3);
    expect(await code('exec', '--state', state, 'a/b', '--', 'true')).toBe(3);
    expect(await code('down', '--state', state)).toBe(0);
    expect(await code('up', '--no-such-flag')).toBe(2);
    expect(await code('no-such-command')).toBe(2);
    expect(await code('--help')).toBe(0);
    expect(await code('check', '-f', join(directory, 'missing.yaml'))).toBe(1);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

test('run gives the exit code of its command, and its pod is gone with it', async () => {
  const mesh = await openTracked();
  const identity = ['--namespace', 'shop', '--service-account', 'job', '--name', 'job-1'];
  expect((await mesh.tulle('run', ...identity, '--', 'sh', '-c', 'exit 7')).code).toBe(7);
  expect((await mesh.tulle('run', ...identity, '--', 'sh', '-c', 'kill -9 $$')).code).toBe(137);
  expect((await mesh.status()).workloads).toEqual([]);
});

test('a workload has no capability to change its network and cannot read the state', async () => {
  const mesh = await openTracked();
  await mesh.run({ namespace: 'shop', name: 'web-1', command: ['sleep', 'infinity'] }, true);
  const { stdout } = await mesh.exec('shop/web-1', [
    'grep',
    '-E',
    'CapEff|CapBnd|NoNewPrivs',
    '/proc/self/status',
  ]);
  expect(stdout.replaceAll(/\s+/g, ' ').trim()).toMatch(
    /CapEff: 0000000000000400 CapBnd: 0000000000000400 NoNewPrivs: 1/,
  );
  expect((await mesh.exec('shop/web-1', ['nft', 'list', 'ruleset'])).code).not.toBe(0);
  expect((await mesh.exec('shop/web-1', ['ip', 'route', 'flush', 'table', 'main'])).code).not.toBe(0);
  expect((await mesh.exec('shop/web-1', ['cat', join(mesh.state, 'ca/root.key')])).code).not.toBe(0);
  expect((await mesh.exec('shop/web-1', ['sh', '-c', 'ls -d /proc/[0-9]* | wc -l'])).stdout.trim()).toMatch(
    /^\d$/,
  );
  const attempt = async (script: string): Promise<string> =>
    (await mesh.exec('shop/web-1', ['sh', '-c', script])).stdout.trim();
  expect(await attempt('find /dev -type b')).toBe('');
  expect(await attempt('for d in vda sda nvme0n1 loop0 mem; do head -c 1 /dev/$d && echo $d; done')).toBe('');
  expect(await attempt('mknod /dev/shm/disk b 7 0 && echo made')).toBe('');
  expect(
    await attempt('echo x >/dev/null && head -c 2 /dev/zero | wc -c && test -w /dev/ptmx && ls -A /dev/shm'),
  ).toBe('2');
  expect(readdirSync('/run/netns')).not.toEqual([]);
  expect(
    await attempt('ls -A /run/netns; touch /run/netns/x && echo made; umount /run/netns && echo gone'),
  ).toBe('');
  expect(
    await attempt(
      'for f in $(find /proc/irq /proc/bus /proc/fs -type f); do test ! -w "$f" || echo "$f"; done',
    ),
  ).toBe('');
});
