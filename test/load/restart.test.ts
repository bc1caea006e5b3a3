import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { type LoadOutcome, loadCommand, serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, peerAuthenticationYaml, serviceYaml } from '#test/kit/yaml.ts';

let mesh: Mesh;

beforeAll(async () => {
  const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
  mesh = await openMesh({
    files: { 'mesh.yaml': namespaceYaml('shop', true) + serviceYaml('shop', 'catalog') + strict },
  });
  await mesh.run(
    {
      namespace: 'shop',
      name: 'catalog-1',
      node: 'n2',
      labels: { app: 'catalog' },
      command: serverCommand('c'),
    },
    true,
  );
});

afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

/** Runs a steady load while something happens, and tells how it went. */
async function underLoad(
  name: string,
  happen: (moreCalls: (n: number) => Promise<void>) => Promise<void>,
): Promise<{ short: LoadOutcome; long: LoadOutcome }> {
  const file = join(mesh.directory, `${name}.json`);
  const command = loadCommand('http://catalog.shop:8080/', 'catalog.shop:9000', file);
  const load = await mesh.run({ namespace: 'shop', name, node: 'n1', command }, true);
  const calls = (): number =>
    (JSON.parse(readFileSync(`${file}.live`, 'utf8')) as { short: LoadOutcome }).short.ok;
  await eventually('the load runs', () => calls() > 20, 20_000);
  await happen(async (n) => {
    const start = calls();
    await eventually(`${n} more calls`, () => calls() >= start + n, 30_000);
  });
  await endProcess(load.child);
  return JSON.parse(readFileSync(file, 'utf8')) as { short: LoadOutcome; long: LoadOutcome };
}

test.each(['ztunnel/n1', 'ztunnel/n2'])('restarting %s under load fails no new connection', async (name) => {
  const { short } = await underLoad(`restart-${name.replace('/', '-')}`, async (moreCalls) => {
    expect((await mesh.tulle('restart', name)).code).toBe(0);
    await moreCalls(100);
  });
  expect(short.errors).toEqual([]);
});

test('traffic goes on while the control plane is stopped, and nothing is pushed twice when it is back', async () => {
  const sent = async (): Promise<number> =>
    (await mesh.status()).nodes.flatMap((node) => node.xds).reduce((sum, xds) => sum + xds.sent, 0);
  const { short, long } = await underLoad('outage', async (moreCalls) => {
    expect((await mesh.tulle('stop', 'control-plane')).code).toBe(0);
    await moreCalls(100);
    expect((await mesh.tulle('start', 'control-plane')).code).toBe(0);
    await mesh.until('the mesh is ready again', ({ ready }) => ready, 30_000);
    await moreCalls(50);
  });
  expect([...short.errors, ...long.errors]).toEqual([]);
  expect(await sent()).toBeLessThanOrEqual(4);
});

test('a ztunnel that is killed comes back, and nothing went round it in between', async () => {
  const pid = (await mesh.status()).nodes.find(({ name }) => name === 'n2')?.ztunnel?.pid ?? 0;
  process.kill(pid, 'SIGKILL');
  await mesh.until('the ztunnel is ready again', ({ nodes }) => {
    const ztunnel = nodes.find(({ name }) => name === 'n2')?.ztunnel;
    return (
      ztunnel !== null &&
      ztunnel !== undefined &&
      ztunnel.pid !== pid &&
      ztunnel.ready &&
      ztunnel.restarts === 1
    );
  });
  await mesh.run({ namespace: 'shop', name: 'web-1', node: 'n1', command: ['sleep', 'infinity'] }, true);
  await eventually(
    'calls work again',
    async () =>
      (await mesh.exec('shop/web-1', ['curl', '-sSf', '-m', '3', 'http://catalog.shop:8080/'])).code === 0,
  );
});
