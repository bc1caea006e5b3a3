import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { processesIn, signalCgroup } from '#cli/local/cgroups.ts';
import { eventually } from '#test/kit/eventually.ts';
import { failuresOf, type Load, startLoad } from '#test/kit/load.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { type LoadOutcome, type LoadReport, serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, peerAuthenticationYaml, serviceYaml } from '#test/kit/yaml.ts';

/** `shop` is strict, `loose` permissive; in each a load on n1 calls `catalog` on n2. */
let mesh: Mesh;
let processes: string;

beforeAll(async () => {
  const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
  const yaml = ['shop', 'loose']
    .map((name) => namespaceYaml(name, true) + serviceYaml(name, 'catalog'))
    .join('');
  mesh = await openMesh({ files: { 'mesh.yaml': yaml + strict }, flags: ['--capture', 'ebpf'] });
  const [catalog] = await Promise.all(
    ['shop', 'loose'].map((namespace) =>
      mesh.run(
        {
          namespace,
          name: 'catalog-1',
          node: 'n2',
          labels: { app: 'catalog' },
          command: serverCommand(namespace),
        },
        true,
      ),
    ),
  );
  processes = join(dirname(dirname(catalog?.cgroup ?? '')), 'processes');
});
afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

type Both<T> = Readonly<Record<'shop' | 'loose', T>>;

/** Runs a load in both namespaces while something happens; how each went. */
async function underLoads(
  name: string,
  happen: (loads: Both<Load>) => Promise<void>,
): Promise<Both<LoadReport>> {
  const [shop, loose] = await Promise.all([startIn('shop', name), startIn('loose', name)]);
  await happen({ shop, loose });
  const reports = await Promise.all([shop.end(), loose.end()]);
  return { shop: reports[0], loose: reports[1] };
}

function startIn(namespace: string, name: string): Promise<Load> {
  const host = `catalog.${namespace}`;
  return startLoad(mesh, { namespace, name, node: 'n1', url: `http://${host}:8080/`, tcp: `${host}:9000` });
}

async function ztunnelPid(node: string): Promise<number> {
  return (await mesh.status()).nodes.find(({ name }) => name === node)?.ztunnel?.pid ?? 0;
}

test('both node agents are killed under load, and nothing fails', async () => {
  const { shop, loose } = await underLoads('agents', async (loads) => {
    for (const name of readdirSync(processes).filter((one) => one.startsWith('node-agent'))) {
      const pids = processesIn(join(processes, name));
      signalCgroup(join(processes, name), 'SIGKILL');
      await eventually('there is another one', () =>
        processesIn(join(processes, name)).some((pid) => !pids.includes(pid)),
      );
      await Promise.all([loads.shop.moreCalls(50), loads.loose.moreCalls(50)]);
    }
  });
  expect([failuresOf(shop), failuresOf(loose)]).toEqual([[], []]);
});

test('a ztunnel is killed under load: a permissive pod goes on without it, a strict one waits for the next', async () => {
  const pid = await ztunnelPid('n1');
  const { shop, loose } = await underLoads('kill', async (loads) => {
    const strict = (): LoadOutcome => loads.shop.live().short;
    mesh.up.kill('SIGSTOP'); // nobody starts the next one
    process.kill(pid, 'SIGKILL');
    await loads.loose.moreCalls(50);
    const { ok, failed } = strict();
    await eventually('the strict one is refused', () => strict().failed > failed + 10 && strict().ok === ok);
    mesh.up.kill('SIGCONT');
    await loads.shop.moreCalls(50);
  });
  // What was under way when it was killed is lost; one request at a time, in each.
  expect(loose.short.failed).toBeLessThanOrEqual(2);
  expect(shop.short.failed).toBeGreaterThan(0);
  for (const error of shop.short.errors.slice(1))
    expect(error).toMatch(/EPERM|ECONNREFUSED|ECONNRESET|socket hang up|EAI_AGAIN/);
});

test('with the control plane killed, too, nothing more fails', async () => {
  const { shop, loose } = await underLoads('outage', async (loads) => {
    const { controlPlane } = await mesh.status();
    mesh.up.kill('SIGSTOP');
    process.kill(controlPlane.pid, 'SIGKILL');
    await Promise.all([loads.shop.moreCalls(100), loads.loose.moreCalls(100)]);
    mesh.up.kill('SIGCONT');
    await mesh.until('the mesh is ready again', ({ ready }) => ready, 30_000);
    await loads.shop.moreCalls(50);
  });
  expect([failuresOf(shop), failuresOf(loose)]).toEqual([[], []]);
});

test('both ztunnels are upgraded under load with the control plane gone, and no new connection fails', async () => {
  const { shop, loose } = await underLoads('upgrade', async (loads) => {
    expect((await mesh.tulle('stop', 'control-plane')).code).toBe(0);
    const restarting = ['n1', 'n2'].map((node) => mesh.tulle('restart', `ztunnel/${node}`));
    await Promise.all([loads.shop.moreCalls(100), loads.loose.moreCalls(100)]);
    expect((await mesh.tulle('start', 'control-plane')).code).toBe(0);
    for (const restarted of restarting) expect((await restarted).code).toBe(0);
    await Promise.all([loads.shop.moreCalls(50), loads.loose.moreCalls(50)]);
  });
  for (const load of [shop, loose]) expect([load.short.failed, load.short.errors]).toEqual([0, []]);
});
