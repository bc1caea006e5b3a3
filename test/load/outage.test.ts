import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { endProcess, mustRun, startLogged } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { failuresOf, startLoad } from '#test/kit/load.ts';
import { type Mesh, openMesh, TULLE } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import {
  BEHIND_WAYPOINT,
  namespaceYaml,
  peerAuthenticationYaml,
  serviceYaml,
  waypointYaml,
} from '#test/kit/yaml.ts';

/** The control plane is away: for a while, and for longer than certificates live. */
let mesh: Mesh;

const ROUTED = `apiVersion: v1
kind: Service
metadata: {name: routed, namespace: shop, labels: {${BEHIND_WAYPOINT}}}
spec: {selector: {app: catalog}, ports: [{name: http, port: 8080, appProtocol: http}]}
---
`;

/** So that all of it once more would be seen on the wire. */
const CROWD = Array.from({ length: 60 }, (_, index) => serviceYaml('shop', `other-${index}`)).join('');

beforeAll(async () => {
  const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
  const services = serviceYaml('shop', 'catalog') + ROUTED + waypointYaml('shop') + CROWD;
  mesh = await openMesh({
    files: { 'mesh.yaml': namespaceYaml('shop', true) + services + strict },
    flags: ['--svid-ttl', '60s'],
  });
  const labels = { app: 'catalog' };
  const command = serverCommand('c');
  await mesh.run({ namespace: 'shop', name: 'catalog-1', node: 'n2', labels, command }, true);
  await mesh.run({ namespace: 'shop', name: 'web-1', node: 'n1', command: ['sleep', 'infinity'] }, true);
});

afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

/** Bytes of configuration that each ztunnel and waypoint has received. */
async function bytesReceived(): Promise<ReadonlyMap<string, number>> {
  const sockets = ['n1/ztunnel.sock', 'n2/ztunnel.sock', 'waypoints/shop_waypoint-0.sock'];
  const received = sockets.map(async (name) => {
    const socket = join(mesh.state, 'run', name);
    const text = await mustRun(['curl', '-sSf', '--unix-socket', socket, 'http://localhost/metrics']);
    const values = [...text.matchAll(/^istio_xds_message_bytes_total\{.*\} (\d+)$/gm)];
    return [name, values.reduce((sum, [, value]) => sum + Number(value), 0)] as const;
  });
  return new Map(await Promise.all(received));
}

const call = async (host: string): Promise<number> =>
  (await mesh.exec('shop/web-1', ['curl', '-sSf', '-m', '3', `http://${host}:8080/`])).code;

test('traffic goes on, what comes meanwhile waits and gets there, and nothing is sent twice', async () => {
  const to = { url: 'http://routed.shop:8080/', tcp: 'catalog.shop:9000' };
  const load = await startLoad(mesh, { namespace: 'shop', name: 'load', node: 'n1', ...to });
  const root = readFileSync(join(mesh.state, 'ca', 'root.pem'), 'utf8');
  const before = await bytesReceived();
  expect((await mesh.tulle('stop', 'control-plane')).code).toBe(0);

  const log = join(mesh.directory, 'late.log');
  const flags = ['--namespace', 'shop', '--name', 'late', '--service-account', 'late', '--node', 'n2'];
  const late = startLogged([TULLE, 'run', '--state', mesh.state, ...flags, '--', 'sleep', '60'], log);
  await eventually('run says what it waits for', () =>
    /waits to be in the mesh: the control plane is stopped since \S+Z: tulle start control-plane/.test(
      readFileSync(log, 'utf8'),
    ),
  );
  const status = await mesh.status();
  expect(status.problems).toMatchObject([
    { object: 'control-plane', message: expect.stringMatching(/^is stopped since \S+Z$/) },
  ]);
  expect(status.workloads.find(({ name }) => name === 'late')).toMatchObject({
    enrolled: false,
    pending: expect.stringMatching(/^the control plane is stopped since/),
    pendingSince: expect.stringMatching(/Z$/),
  });
  await load.moreCalls(50);

  expect((await mesh.tulle('start', 'control-plane')).code).toBe(0);
  await mesh.until('what waited is in the mesh', ({ ready, workloads }) => {
    return ready && workloads.some(({ name, enrolled, pid }) => name === 'late' && enrolled && pid > 0);
  });
  expect(readFileSync(join(mesh.state, 'ca', 'root.pem'), 'utf8')).toBe(root);
  const after = await bytesReceived();
  for (const [name, bytes] of after) {
    const more = bytes - (before.get(name) ?? 0);
    process.stdout.write(`${name}: ${before.get(name)} bytes before the outage, ${more} after it\n`);
    expect(more).toBeLessThan((before.get(name) ?? 0) / 4);
  }
  await endProcess(late);
  const outcomes = await load.end();
  for (const [kind, { ok, longestMs }] of Object.entries(outcomes)) {
    process.stdout.write(`${kind}: ${ok} ok, longest stall ${longestMs} ms\n`);
  }
  expect(failuresOf(outcomes)).toEqual([]);
});

test('certificates that nobody renews are said to end before they do, and it goes on when they come', async () => {
  expect(await call('catalog.shop')).toBe(0);
  expect((await mesh.tulle('stop', 'control-plane')).code).toBe(0);
  const warned = await mesh.until(
    'the end is said',
    ({ problems }) =>
      problems.some(({ message }) => /^its certificate \(ztunnel\/n1\) ends at/.test(message)),
    60_000,
  );
  expect(warned.problems.map(({ object }) => object)).toContain('spiffe://cluster.local/ns/shop/sa/default');
  expect(await call('catalog.shop')).toBe(0);
  await mesh.until(
    'it is over',
    ({ problems }) =>
      problems.some(({ message }) => /^its certificate \(ztunnel\/n1\) ended at/.test(message)),
    60_000,
  );
  await eventually('calls are refused', async () => (await call('catalog.shop')) !== 0);
  expect((await mesh.tulle('start', 'control-plane')).code).toBe(0);
  for (const host of ['catalog.shop', 'routed.shop']) {
    await eventually(`calls of ${host} work again`, async () => (await call(host)) === 0, 30_000);
  }
  await mesh.until('nothing is wrong', ({ problems }) => problems.length === 0);
}, 200_000);
