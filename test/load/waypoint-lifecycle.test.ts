import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { endProcess, mustRun, runCommand, startLogged } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { failuresOf, type LoadOptions, underLoad } from '#test/kit/load.ts';
import { type Mesh, openMesh, TULLE, type WaypointStatus } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { tracesOf } from '#test/kit/traces.ts';
import { namespaceYaml, serviceYaml } from '#test/kit/yaml.ts';

/** How a waypoint comes, goes, crashes and is replaced; one mesh, whose Gateway changes. */
let mesh: Mesh;

const MESH = namespaceYaml('shop', true, 'istio.io/use-waypoint: waypoint') + serviceYaml('shop', 'catalog');

function gateway(replicas: number): string {
  return `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: tulle-waypoint
  infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: size}}
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: size, namespace: shop}
data:
  deployment: |
    spec:
      replicas: ${replicas}
`;
}

beforeAll(async () => {
  mesh = await openMesh({ files: { 'mesh.yaml': MESH, 'gateway.yaml': gateway(1) } });
  const labels = { app: 'catalog' };
  await mesh.run({ namespace: 'shop', name: 'catalog-1', labels, command: serverCommand('catalog') }, true);
  await mesh.run({ namespace: 'shop', name: 'web-1', command: ['sleep', 'infinity'] }, true);
});
afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});
beforeEach(async () => {
  mesh.write('gateway.yaml', gateway(1));
  await replicas(1);
});

/** Waits until so many replicas are ready, and no others are there. */
async function replicas(count: number): Promise<WaypointStatus> {
  const { waypoints } = await mesh.until(
    `${count} replicas are ready`,
    ({ ready, waypoints: [one] }) => ready && one?.replicas.length === count,
    40_000,
  );
  const [waypoint] = waypoints;
  if (waypoint === undefined) throw new Error('there is no waypoint');
  return waypoint;
}

/** The status of an answer; 0 for none. */
async function statusOfCall(): Promise<number> {
  const command = [
    'curl',
    '-s',
    '-m',
    '5',
    '-o',
    '/dev/null',
    '-w',
    '%{http_code}',
    'http://catalog.shop:8080/',
  ];
  return Number((await mesh.exec('shop/web-1', command)).stdout);
}

let loads = 0;

/** The next load of the service. */
function load(): LoadOptions {
  loads += 1;
  return { namespace: 'shop', name: `load-${loads}`, url: 'http://catalog.shop:8080/' };
}

test('a Gateway starts a waypoint that is ready with the mesh, under its own identity, outside the mesh', async () => {
  const { waypoints, workloads } = await mesh.status();
  expect(waypoints).toMatchObject([
    { namespace: 'shop', name: 'waypoint', ready: true, serves: ['shop/catalog.shop.svc.cluster.local'] },
  ]);
  const pod = workloads.find(({ name }) => name === 'waypoint-0');
  expect(pod).toMatchObject({
    identity: 'spiffe://cluster.local/ns/shop/sa/waypoint',
    enrolled: false,
    addresses: waypoints[0]?.addresses,
    pid: waypoints[0]?.pid,
    certificate: { serial: expect.any(String) },
  });
  const sysctl = '/proc/sys/net/ipv4/tcp_migrate_req';
  expect(await mustRun(['nsenter', `--net=/run/netns/${pod?.netns}`, 'cat', sysctl])).toBe('1\n');
  expect(statSync(join(mesh.state, 'tokens/waypoints/shop_waypoint')).mode & 0o777).toBe(0o600);
  expect(await statusOfCall()).toBe(200);
});

test('replicas are spread over the nodes; fewer of them fail no request', async () => {
  mesh.write('gateway.yaml', gateway(2));
  const two = await replicas(2);
  expect(new Set(two.replicas.map(({ node }) => node)).size).toBe(2);
  const report = await underLoad(mesh, load(), async (moreCalls) => {
    await moreCalls(50);
    mesh.write('gateway.yaml', gateway(1));
    await replicas(1);
    await moreCalls(50);
  });
  expect(failuresOf(report)).toEqual([]);
  const left = await mesh.status();
  expect(left.workloads.map(({ name }) => name)).not.toContain('waypoint-1');
  await eventually('its namespace is gone', async () => {
    const gone = two.replicas[1]?.netns ?? '';
    return !(await mustRun(['ip', 'netns', 'list'])).split('\n').some((line) => line.startsWith(`${gone} `));
  });
  expect(
    readdirSync(join(mesh.state, 'run/waypoints')).filter((file) => file.includes('waypoint-1')),
  ).toEqual([]);
});

test('a restart takes each replica in turn, keeps its addresses and fails no request', async () => {
  mesh.write('gateway.yaml', gateway(2));
  const before = await replicas(2);
  const report = await underLoad(mesh, load(), async (moreCalls) => {
    expect((await mesh.tulle('restart', 'waypoint/shop/waypoint')).code).toBe(0);
    await moreCalls(50);
  });
  expect(failuresOf(report)).toEqual([]);
  const after = await replicas(2);
  expect(after.addresses).toEqual(before.addresses);
  expect(after.replicas.map(({ restarts }) => restarts)).toEqual([0, 0]);
  for (const [index, { pid }] of after.replicas.entries()) expect(pid).not.toBe(before.replicas[index]?.pid);
});

test('a replica that crashes is started again at its addresses, and counted', async () => {
  const before = await replicas(1);
  process.kill(before.pid ?? 0, 'SIGKILL');
  await mesh.until(
    'it has been started again',
    ({ waypoints: [one] }) => (one?.replicas[0]?.restarts ?? 0) > 0,
  );
  const after = await replicas(1);
  expect(after.addresses).toEqual(before.addresses);
  expect(after.pid).not.toBe(before.pid);
  await eventually('calls are answered', async () => (await statusOfCall()) === 200);
});

test('while a waypoint is stopped nobody goes round it, and status says whose calls are refused', async () => {
  expect((await mesh.tulle('stop', 'waypoint/shop/waypoint')).code).toBe(0);
  const { problems, ready } = await mesh.status();
  expect(ready).toBe(false);
  expect(problems).toContainEqual(
    expect.objectContaining({
      object: 'waypoint/shop/waypoint',
      message: 'is stopped',
      effect: 'requests to shop/catalog.shop.svc.cluster.local are refused',
    }),
  );
  expect(await statusOfCall()).toBe(0);
  expect((await mesh.tulle('start', 'waypoint/shop/waypoint')).code).toBe(0);
  await eventually('calls are answered', async () => (await statusOfCall()) === 200);
});

test('a waypoint that is wanted no more goes with all that was made for it', async () => {
  const { replicas: before } = await replicas(1);
  mesh.remove('gateway.yaml');
  await mesh.until('it is gone', ({ waypoints }) => waypoints.length === 0, 40_000);
  const token = join(mesh.state, 'tokens/waypoints/shop_waypoint');
  await eventually('its token is gone', () => !existsSync(token));
  expect((await mesh.status()).workloads.map(({ name }) => name)).not.toContain('waypoint-0');
  expect(await mustRun(['ip', 'netns', 'list'])).not.toContain(before[0]?.netns);
});

test('one that hangs is replaced by the next up, as soon as there is a control plane, and down leaves nothing', {
  timeout: 300_000,
}, async () => {
  const before = await replicas(1);
  mesh.up.kill('SIGKILL');
  await endProcess(mesh.up);
  process.kill(before.pid ?? 0, 'SIGSTOP');
  const log = join(mesh.directory, 'up-2.log');
  const again = startLogged([TULLE, 'up', '--state', mesh.state, '-f', join(mesh.directory, 'mesh')], log);
  const stop = async (): Promise<boolean> => (await mesh.tulle('stop', 'control-plane')).code === 0;
  await eventually('the control plane is stopped', stop, 30_000);
  const words = /^is not ready, and cannot be replaced since .*, which is tried again: the new waypoint/;
  await mesh.until(
    'it cannot be replaced',
    ({ problems }) => problems.some(({ message }) => words.test(message)),
    90_000,
  );
  expect((await mesh.tulle('start', 'control-plane')).code).toBe(0);
  await eventually('mesh ready', () => readFileSync(log, 'utf8').includes('mesh ready'), 90_000);
  const after = await replicas(1);
  expect(after.pid).not.toBe(before.pid);
  await eventually('calls are answered', async () => (await statusOfCall()) === 200, 20_000);
  again.kill('SIGKILL');
  process.kill(after.pid ?? 0, 'SIGKILL');
  expect((await runCommand([TULLE, 'down', '--state', mesh.state], 60_000)).code).toBe(0);
  await eventually('nothing is left', async () => (await tracesOf(mesh.state)).length === 0, 20_000);
  expect(existsSync(join(mesh.state, 'run'))).toBe(false);
});
