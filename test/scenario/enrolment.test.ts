import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { type LoadReport, loadCommand, serverCommand } from '#test/kit/programs/programs.ts';
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
  const file = join(mesh.directory, 'load.json');
  const command = loadCommand('http://catalog.shop:8080/', 'catalog.shop:9000', file);
  const web = await mesh.run({ namespace: 'shop', name: 'web-1', node: 'n1', command }, false);
  const live = (): LoadReport => JSON.parse(readFileSync(`${file}.live`, 'utf8')) as LoadReport;
  const moreCalls = async (calls: number): Promise<void> => {
    const before = live().short.ok;
    await eventually(`${calls} more calls`, () => live().short.ok >= before + calls, 30_000);
  };
  await eventually('the load runs', () => live().long.ok > 0, 20_000);
  await moreCalls(50);

  for (let turn = 0; turn < 3; turn++) {
    mesh.write('shop.yaml', namespaceYaml('shop', true));
    await mesh.until(
      'all are enrolled',
      (status) => status.workloads.every((workload) => workload.enrolled),
      10_000,
    );
    await eventually('calls are tunnelled', () => tunnelled(mesh.accessLog('n1')) > 0);
    await moreCalls(50);
    mesh.write('shop.yaml', namespaceYaml('shop', false));
    await mesh.until(
      'none is enrolled',
      (status) => status.workloads.every((workload) => !workload.enrolled),
      10_000,
    );
    await moreCalls(50);
  }

  await endProcess(web.child);
  const { short, keepAlive, long } = JSON.parse(readFileSync(file, 'utf8')) as LoadReport;
  const failures = { short: short.errors, keepAlive: keepAlive.errors, long: long.errors };
  expect(failures).toEqual({ short: [], keepAlive: [], long: [] });
  expect(short.ok).toBeGreaterThan(350);
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
