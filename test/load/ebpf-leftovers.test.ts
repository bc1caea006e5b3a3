import { existsSync, readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { processesIn, signalCgroup } from '#cli/local/cgroups.ts';
import { aliveObjects, pinnedObjects } from '#test/kit/bpf-objects.ts';
import { addressOf, startObserver } from '#test/kit/bypass.ts';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, type WorkloadStatus } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { tracesOf } from '#test/kit/traces.ts';
import { namespaceYaml, peerAuthenticationYaml } from '#test/kit/yaml.ts';

const FILES = {
  'mesh.yaml':
    namespaceYaml('shop', true) + peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}'),
};
const open: Mesh[] = [];

async function openTracked(): Promise<Mesh> {
  const mesh = await openMesh({ files: FILES, flags: ['--capture', 'ebpf'] });
  open.push(mesh);
  return mesh;
}

afterEach(async () => {
  for (const mesh of open.splice(0)) await mesh[Symbol.asyncDispose]();
});

function run(mesh: Mesh, name: string, command: readonly string[], node = 'n1'): ReturnType<Mesh['run']> {
  return mesh.run({ namespace: 'shop', name, node, command }, true);
}

/** The cgroup of the mesh that a workload is of, and where its eBPF objects are pinned. */
function placeOf({ cgroup }: WorkloadStatus): { readonly cgroup: string; readonly pins: string } {
  const root = dirname(dirname(cgroup));
  return { cgroup: root, pins: join('/sys/fs/bpf/tulle', basename(root)) };
}

async function carries(mesh: Mesh, to: WorkloadStatus): Promise<void> {
  await eventually('the mesh carries', async () => {
    const url = `http://${addressOf(to, 'v4')}:8080/`;
    return (await mesh.exec('shop/web-1', ['curl', '-sS', '-m', '5', url])).stdout.includes('remoteAddress');
  });
}

test('down leaves nothing in the kernel, also when everything was killed, and a mesh beside it goes on', async () => {
  const [mesh, beside] = await Promise.all([openTracked(), openTracked()]);
  const [web, catalog] = await Promise.all([
    run(beside, 'web-1', ['sleep', 'infinity']),
    run(beside, 'catalog-1', serverCommand('beside'), 'n2'),
    run(mesh, 'web-1', ['sleep', 'infinity']),
  ]);
  const killed = await run(mesh, 'catalog-1', serverCommand('c'));
  const [place, other] = [placeOf(killed), placeOf(web)];
  const [before, kept] = [await pinnedObjects(place.pins), await pinnedObjects(other.pins)];
  for (const kind of ['prog', 'map', 'link'])
    expect(before.filter((one) => one.kind === kind)).not.toEqual([]);

  mesh.up.kill('SIGKILL');
  signalCgroup(place.cgroup, 'SIGKILL');
  expect((await mesh.tulle('down')).code).toBe(0);

  await eventually('nothing is left in the kernel', async () => (await aliveObjects(before)).length === 0);
  expect([existsSync(place.pins), existsSync(place.cgroup)]).toEqual([false, false]);
  expect(await tracesOf(mesh.state)).toEqual([]);
  expect(await aliveObjects(kept)).toEqual(kept);
  await carries(beside, catalog);
});

test('pins of pods that went while no node agent was there are swept by the next one', async () => {
  const mesh = await openTracked();
  const [kept, lost] = await Promise.all([
    run(mesh, 'catalog-1', serverCommand('c'), 'n2'),
    run(mesh, 'lost-1', ['sleep', 'infinity']),
    run(mesh, 'web-1', ['sleep', 'infinity']),
  ]);
  const place = placeOf(kept);
  const pods = (): readonly string[] => readdirSync(join(place.pins, 'v1/pods'));
  const agent = join(place.cgroup, 'processes');
  expect(pods()).toHaveLength(3);
  const before = await pinnedObjects(place.pins);
  mesh.up.kill('SIGSTOP');
  for (const name of readdirSync(agent).filter((one) => one.startsWith('node-agent'))) {
    signalCgroup(join(agent, name), 'SIGKILL');
    await eventually('it is gone', () => processesIn(join(agent, name)).length === 0);
  }
  lost.child.kill('SIGKILL');
  signalCgroup(lost.cgroup, 'SIGKILL');
  mesh.up.kill('SIGCONT');
  await eventually('its pins are swept', () => pods().length === 2, 30_000);
  const alive = await aliveObjects(before);
  expect(alive.length).toBeLessThan(before.length);
  await carries(mesh, kept);
});

test('a workload that does not want to end is in the mesh as long as it lives', async () => {
  const mesh = await openTracked();
  const catalog = await run(mesh, 'catalog-1', serverCommand('c'), 'n2');
  const to = { host: addressOf(catalog, 'v4'), port: 23_999 };
  const stubborn = `process.on('SIGTERM', () => {});
    const dial = () => require('net').connect(${JSON.stringify(to)}).on('error', () => {}).on('close', () => setTimeout(dial, 1));
    dial();`;
  await run(mesh, 'web-1', [process.execPath, '-e', stubborn]);
  const nodeNetns = (await mesh.status()).nodes.find(({ name }) => name === 'n1')?.netns ?? '';
  await using observer = await startObserver(nodeNetns);
  const down = mesh.tulle('down');
  await endProcess(mesh.up);
  expect((await down).code).toBe(0);
  expect(observer.leakOf({ ...to, way: 'connect', own: '' })).toEqual([]);
});
