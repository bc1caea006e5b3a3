import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { endProcess, mustRun, runCommand } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { failuresOf, type LoadOptions, underLoad } from '#test/kit/load.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { type LoadReport, serverCommand } from '#test/kit/programs/programs.ts';
import {
  BEHIND_WAYPOINT,
  namespaceYaml,
  peerAuthenticationYaml,
  serviceYaml,
  waypointYaml,
} from '#test/kit/yaml.ts';

/** `tulle up` is killed, alone or with all of the mesh, and another one goes on with what is left. */
let mesh: Mesh;

const ROUTED = `apiVersion: v1
kind: Service
metadata: {name: routed, namespace: shop, labels: {${BEHIND_WAYPOINT}}}
spec: {selector: {app: catalog}, ports: [{name: http, port: 8080, appProtocol: http}]}
---
`;

beforeAll(async () => {
  const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
  const services = serviceYaml('shop', 'catalog') + ROUTED + waypointYaml('shop');
  mesh = await openMesh({
    files: { 'mesh.yaml': namespaceYaml('shop', true) + namespaceYaml('out', false) + services + strict },
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
  await mesh.run({ namespace: 'out', name: 'stranger', node: 'n1', command: ['sleep', 'infinity'] }, false);
});

afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

/** A load of a service from node n1, with a long connection past the waypoint. */
const load = (name: string, host = 'catalog.shop'): LoadOptions => ({
  ...{ namespace: 'shop', name, node: 'n1' },
  ...{ url: `http://${host}:8080/`, tcp: 'catalog.shop:9000' },
});

function print(what: string, outcomes: LoadReport): void {
  const lines = Object.entries(outcomes).map(
    ([kind, { ok, failed, longestMs }]) =>
      `${what} ${kind}: ${ok} ok, ${failed} failed, longest stall ${longestMs} ms\n`,
  );
  process.stdout.write(lines.join(''));
}

/** Numbers of all processes of the mesh, by name. */
async function processesOf(): Promise<ReadonlyMap<string, number>> {
  const { controlPlane, nodes, waypoints } = await mesh.status();
  return new Map([
    ['control-plane', controlPlane.pid],
    ...nodes.map(({ name, ztunnel }) => [`ztunnel/${name}`, ztunnel?.pid ?? 0] as const),
    ...waypoints.flatMap(({ replicas }) => replicas.map(({ name, pid }) => [name, pid ?? 0] as const)),
  ]);
}

test.each(['catalog.shop', 'routed.shop'])(
  'a killed tulle up fails and cuts nothing of %s, twice in a row, and the next one takes its processes over',
  async (host) => {
    const before = await processesOf();
    const outcomes = await underLoad(mesh, load(`adopted-${host.split('.')[0]}`, host), async (moreCalls) => {
      for (let time = 0; time < 2; time++) {
        await endProcess(mesh.up, 'SIGKILL');
        await moreCalls(50);
        await mesh.upAgain();
        await moreCalls(100);
      }
    });
    print(host, outcomes);
    expect(failuresOf(outcomes)).toEqual([]);
    expect(await processesOf()).toEqual(before);
  },
);

test('what was taken over is supervised: it comes back when it dies, and can be restarted and stopped', async () => {
  const ztunnelOf = async () => (await mesh.status()).nodes.find(({ name }) => name === 'n1')?.ztunnel;
  const first = (await ztunnelOf())?.pid ?? 0;
  process.kill(first, 'SIGKILL');
  await mesh.until('another one is ready', ({ nodes }) => {
    const found = nodes.find(({ name }) => name === 'n1')?.ztunnel;
    return found?.ready === true && found.pid !== first && found.restarts === 1;
  });
  expect((await mesh.tulle('restart', 'ztunnel/n2')).code).toBe(0);
  expect((await mesh.tulle('stop', 'control-plane')).code).toBe(0);
  expect((await mesh.tulle('start', 'control-plane')).code).toBe(0);
});

test('without descriptors the supervisor lives, gives nothing up for dead, and goes on when it has some', async () => {
  const before = await mesh.status();
  const limit = (files: number): Promise<string> =>
    mustRun(['prlimit', '--pid', `${mesh.up.pid ?? 0}`, `--nofile=${files}:`]);
  const outcomes = await underLoad(mesh, load('exhausted'), async (moreCalls) => {
    await limit(3);
    process.kill(before.controlPlane.pid, 'SIGKILL');
    await moreCalls(400);
    await limit(4_096);
    await mesh.until('all runs again', ({ ready, problems }) => ready && problems.length === 0, 30_000);
  });
  expect(failuresOf(outcomes)).toEqual([]);
  const known = new Map((await mesh.status()).workloads.map(({ name, pid }) => [name, pid]));
  for (const { name, pid } of before.workloads) expect([name, known.get(name)]).toEqual([name, pid]);
});

test('other settings replace what runs, and fail no new connection', async () => {
  const before = await processesOf();
  const outcomes = await underLoad(mesh, load('renewed'), async (moreCalls) => {
    await endProcess(mesh.up, 'SIGKILL');
    process.env['LOG_LEVEL'] = 'debug';
    await mesh.upAgain().finally(() => delete process.env['LOG_LEVEL']);
    await eventually('all processes are others', async () => {
      const now = await processesOf();
      return [...now].every(([name, pid]) => pid > 0 && pid !== before.get(name));
    });
    await moreCalls(100);
  });
  print('other settings', outcomes);
  expect(outcomes.short.errors).toEqual([]);
});

test('with all of the mesh killed its strict pods are closed, until the next up has started it again', async () => {
  const [catalog] = (await mesh.status()).workloads.filter(({ name }) => name === 'catalog-1');
  const stranger = (await mesh.status()).workloads.find(({ name }) => name === 'stranger');
  const callFrom = async (netns: string, url: string): Promise<string> =>
    (await runCommand(['ip', 'netns', 'exec', netns, 'curl', '-sS', '-m', '2', url])).stdout;
  const url = `http://${catalog?.addresses[0] ?? ''}:8080/`;
  const processes = join(`${catalog?.cgroup ?? ''}`, '../../processes');
  await endProcess(mesh.up, 'SIGKILL');
  for (const name of readdirSync(processes, { withFileTypes: true })) {
    if (!name.isDirectory()) continue;
    const pids = readFileSync(join(processes, name.name, 'cgroup.procs'), 'utf8')
      .split('\n')
      .filter(Boolean);
    for (const pid of pids) process.kill(Number(pid), 'SIGKILL');
  }
  expect(await callFrom(catalog?.netns ?? '', 'http://127.0.0.1:8080/')).not.toBe('');
  expect(await callFrom(stranger?.netns ?? '', url)).toBe('');
  await mesh.upAgain();
  expect(await callFrom(stranger?.netns ?? '', url)).toBe('');
  await mesh.run({ namespace: 'shop', name: 'web-1', node: 'n1', command: ['sleep', 'infinity'] }, true);
  for (const host of ['catalog.shop', 'routed.shop']) {
    await eventually('calls work again', async () => {
      const call = ['curl', '-sSf', '-m', '3', `http://${host}:8080/`];
      return (await mesh.exec('shop/web-1', call)).code === 0;
    });
  }
});

test('a mesh whose state folder was deleted is taken down by its path', async () => {
  const mark = ((await mesh.status()).controlPlane.netns.split('-control-plane')[0] ?? '').concat('-');
  const left = async (): Promise<readonly string[]> =>
    (await mustRun(['ip', 'netns', 'list'])).split('\n').filter((line) => line.startsWith(mark));
  expect((await left()).length).toBeGreaterThan(3);
  rmSync(mesh.state, { recursive: true });
  const { code, stdout } = await mesh.tulle('down');
  expect([code, stdout]).toEqual([0, expect.stringMatching(/^mesh is down/)]);
  expect(await left()).toEqual([]);
  expect((await mesh.tulle('down')).stdout).toMatch(/^nothing to do/);
});
