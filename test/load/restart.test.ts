import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { failuresOf, type LoadOptions, underLoad } from '#test/kit/load.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
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

/** A load of the service from another node. */
const load = (name: string): LoadOptions => ({
  ...{ namespace: 'shop', name, node: 'n1' },
  ...{ url: 'http://catalog.shop:8080/', tcp: 'catalog.shop:9000' },
});

test.each(['ztunnel/n1', 'ztunnel/n2'])('restarting %s under load fails no new connection', async (name) => {
  const { short } = await underLoad(mesh, load(`restart-${name.replace('/', '-')}`), async (moreCalls) => {
    expect((await mesh.tulle('restart', name)).code).toBe(0);
    await moreCalls(100);
  });
  expect(short.errors).toEqual([]);
});

test('traffic goes on while the control plane is stopped, and nothing is pushed twice when it is back', async () => {
  const sent = async (): Promise<number> =>
    (await mesh.status()).nodes.flatMap((node) => node.xds).reduce((sum, xds) => sum + xds.sent, 0);
  const report = await underLoad(mesh, load('outage'), async (moreCalls) => {
    expect((await mesh.tulle('stop', 'control-plane')).code).toBe(0);
    await moreCalls(100);
    expect((await mesh.tulle('start', 'control-plane')).code).toBe(0);
    await mesh.until('the mesh is ready again', ({ ready }) => ready, 30_000);
    await moreCalls(50);
  });
  expect(failuresOf(report)).toEqual([]);
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
