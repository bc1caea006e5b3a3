import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { processesIn, signalCgroup } from '#cli/local/cgroups.ts';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import {
  type LoadOutcome,
  type LoadReport,
  loadCommand,
  serverCommand,
} from '#test/kit/programs/programs.ts';
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

/** Runs a load in both namespaces while something happens; how each went. */
async function underLoad(
  name: string,
  happen: (moreCalls: (of: 'shop' | 'loose', count: number) => Promise<void>) => Promise<void>,
): Promise<{ readonly shop: LoadReport; readonly loose: LoadReport }> {
  const file = (namespace: string): string => join(mesh.directory, `${name}-${namespace}.json`);
  const calls = (namespace: string): number =>
    (JSON.parse(readFileSync(`${file(namespace)}.live`, 'utf8')) as LoadReport).short.ok;
  const loads = await Promise.all(
    ['shop', 'loose'].map((namespace) => {
      const to = `catalog.${namespace}`;
      const command = loadCommand(`http://${to}:8080/`, `${to}:9000`, file(namespace));
      return mesh.run({ namespace, name, node: 'n1', command }, true);
    }),
  );
  for (const of of ['shop', 'loose'])
    await eventually(`the load in ${of} runs`, () => calls(of) > 20, 20_000);
  await happen(async (of, count) => {
    const start = calls(of);
    await eventually(`${count} more calls in ${of}`, () => calls(of) >= start + count, 40_000);
  });
  await Promise.all(loads.map(({ child }) => endProcess(child)));
  const read = (namespace: string): LoadReport =>
    JSON.parse(readFileSync(file(namespace), 'utf8')) as LoadReport;
  return { shop: read('shop'), loose: read('loose') };
}

async function ztunnelPid(node: string): Promise<number> {
  return (await mesh.status()).nodes.find(({ name }) => name === node)?.ztunnel?.pid ?? 0;
}

test('both node agents are killed under load, and nothing fails', async () => {
  const { shop, loose } = await underLoad('agents', async (moreCalls) => {
    for (const name of readdirSync(processes).filter((one) => one.startsWith('node-agent'))) {
      const pids = processesIn(join(processes, name));
      signalCgroup(join(processes, name), 'SIGKILL');
      await eventually('there is another one', () =>
        processesIn(join(processes, name)).some((pid) => !pids.includes(pid)),
      );
      await Promise.all([moreCalls('shop', 50), moreCalls('loose', 50)]);
    }
  });
  for (const load of [shop, loose]) {
    expect([load.short.errors, load.keepAlive.errors, load.long.errors]).toEqual([[], [], []]);
  }
});

test('a ztunnel is killed under load: a permissive pod goes on without it, a strict one waits for the next', async () => {
  const pid = await ztunnelPid('n1');
  const { shop, loose } = await underLoad('kill', async (moreCalls) => {
    const strict = (): LoadOutcome =>
      (JSON.parse(readFileSync(join(mesh.directory, 'kill-shop.json.live'), 'utf8')) as LoadReport).short;
    mesh.up.kill('SIGSTOP'); // nobody starts the next one
    process.kill(pid, 'SIGKILL');
    await moreCalls('loose', 50);
    const { ok, failed } = strict();
    await eventually('the strict one is refused', () => strict().failed > failed + 10 && strict().ok === ok);
    mesh.up.kill('SIGCONT');
    await moreCalls('shop', 50);
  });
  // What was under way when it was killed is lost; one request at a time, in each.
  expect(loose.short.failed).toBeLessThanOrEqual(2);
  expect(shop.short.failed).toBeGreaterThan(0);
  for (const error of shop.short.errors.slice(1))
    expect(error).toMatch(/EPERM|ECONNREFUSED|ECONNRESET|socket hang up|EAI_AGAIN/);
});

test('with the control plane killed, too, nothing more fails', async () => {
  const { shop, loose } = await underLoad('outage', async (moreCalls) => {
    const { controlPlane } = await mesh.status();
    mesh.up.kill('SIGSTOP');
    process.kill(controlPlane.pid, 'SIGKILL');
    await Promise.all([moreCalls('shop', 100), moreCalls('loose', 100)]);
    mesh.up.kill('SIGCONT');
    await mesh.until('the mesh is ready again', ({ ready }) => ready, 30_000);
    await moreCalls('shop', 50);
  });
  for (const load of [shop, loose]) {
    expect([load.short.errors, load.keepAlive.errors, load.long.errors]).toEqual([[], [], []]);
  }
});

test('both ztunnels are upgraded under load with the control plane gone, and no new connection fails', async () => {
  const { shop, loose } = await underLoad('upgrade', async (moreCalls) => {
    expect((await mesh.tulle('stop', 'control-plane')).code).toBe(0);
    const restarting = ['n1', 'n2'].map((node) => mesh.tulle('restart', `ztunnel/${node}`));
    await Promise.all([moreCalls('shop', 100), moreCalls('loose', 100)]);
    expect((await mesh.tulle('start', 'control-plane')).code).toBe(0);
    for (const restarted of restarting) expect((await restarted).code).toBe(0);
    await Promise.all([moreCalls('shop', 50), moreCalls('loose', 50)]);
  });
  for (const load of [shop, loose]) expect([load.short.failed, load.short.errors]).toEqual([0, []]);
});
