import { afterAll, beforeAll, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { failuresOf, underLoad } from '#test/kit/load.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, serviceYaml } from '#test/kit/yaml.ts';

let mesh: Mesh;

beforeAll(async () => {
  mesh = await openMesh({
    files: { 'shop.yaml': namespaceYaml('shop', false), 'services.yaml': serviceYaml('shop', 'catalog') },
  });
});

afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

test('a namespace enters and leaves the mesh under steady load and nothing fails', {
  timeout: 180_000,
}, async () => {
  const labels = { app: 'catalog' };
  await mesh.run(
    { namespace: 'shop', name: 'catalog-1', node: 'n2', labels, command: serverCommand('catalog-1') },
    false,
  );
  await mesh.run(
    { namespace: 'shop', name: 'catalog-2', node: 'n1', labels, command: serverCommand('catalog-2') },
    false,
  );
  const to = { url: 'http://catalog.shop:8080/', tcp: 'catalog.shop:9000' };
  const web = { namespace: 'shop', name: 'web-1', node: 'n1', enrolled: false, ...to };
  const report = await underLoad(mesh, web, async (moreCalls) => {
    await moreCalls(50);
    for (let turn = 0; turn < 3; turn++) {
      mesh.write('shop.yaml', namespaceYaml('shop', true));
      await mesh.until(
        'all are enrolled',
        ({ workloads }) => workloads.every(({ enrolled }) => enrolled),
        10_000,
      );
      await eventually('calls are tunnelled', () => tunnelled(mesh.accessLog('n1')) > 0);
      await moreCalls(50);
      mesh.write('shop.yaml', namespaceYaml('shop', false));
      await mesh.until(
        'none is enrolled',
        ({ workloads }) => !workloads.some(({ enrolled }) => enrolled),
        10_000,
      );
      await moreCalls(50);
    }
  });
  expect(failuresOf(report)).toEqual([]);
  expect(report.short.ok).toBeGreaterThan(350);
});

test('a running workload is in the mesh within a second of the label, and out within a second of its removal', async () => {
  await mesh.run({ namespace: 'shop', name: 'timed', command: ['sleep', 'infinity'] }, false);
  const isEnrolled = async (): Promise<boolean> =>
    (await mesh.status()).workloads.find(({ name }) => name === 'timed')?.enrolled ?? false;
  for (const wanted of [true, false]) {
    const start = performance.now();
    mesh.write('shop.yaml', namespaceYaml('shop', wanted));
    await eventually(`enrolled: ${wanted}`, async () => (await isEnrolled()) === wanted);
    // The figure is what the promise is about; the bound is generous because status itself takes a process to ask.
    expect(performance.now() - start).toBeLessThan(5_000);
  }
});

function tunnelled(records: readonly Readonly<Record<string, unknown>>[]): number {
  return records.filter(
    (record) => record['dst.hbone_addr'] !== undefined && record['direction'] === 'outbound',
  ).length;
}
