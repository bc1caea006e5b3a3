import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { callFrom } from '#test/kit/calls.ts';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import type { RateReport } from '#test/kit/programs/calls.ts';
import { echoCommand, rateCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml } from '#test/kit/yaml.ts';

/** What changes and what dies under load, and what of that a client sees. Two waypoints, two services, three servers. */
let mesh: Mesh;

beforeAll(async () => {
  mesh = await openMesh({
    files: { 'mesh.yaml': MESH, 'routes.yaml': route(50, 50) },
    flags: ['--nodes', 'n1,n2'],
  });
  for (const [name, version, node] of [
    ['echo-a', 'v1', 'n1'],
    ['echo-b', 'v1', 'n2'],
    ['echo-c', 'v2', 'n2'],
  ] as const)
    await server(name, version, node);
  await mesh.run(
    { namespace: 'shop', name: 'web', serviceAccount: 'web', node: 'n1', command: ['sleep', 'infinity'] },
    true,
  );
  await eventually('requests are answered', async () => {
    const [reply] = await callFrom(mesh, 'shop/web', [{ url: 'http://echo.shop/' }]);
    return reply?.status === 200;
  });
});
afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

function server(name: string, version: string, node: string): ReturnType<Mesh['run']> {
  const labels = { app: 'echo', version };
  return mesh.run(
    { namespace: 'shop', name, serviceAccount: 'echo', node, labels, command: echoCommand(name) },
    true,
  );
}

let loads = 0;

/** Runs an action while requests come at a rate, and returns what the client saw. */
async function under(
  load: { readonly perSecond: number; readonly connections: number; readonly method?: string },
  action: (more: (requests: number) => Promise<void>) => Promise<void>,
): Promise<RateReport> {
  loads += 1;
  const file = join(mesh.directory, `rate-${loads}.json`);
  const command = rateCommand('http://echo.shop/', load.perSecond, load.connections, file, load.method);
  const client = await mesh.run(
    { namespace: 'shop', name: `load-${loads}`, serviceAccount: 'web', node: 'n1', command },
    true,
  );
  const live = (): RateReport => JSON.parse(readFileSync(`${file}.live`, 'utf8')) as RateReport;
  const more = async (requests: number): Promise<void> => {
    const { ok } = live();
    await eventually(`${requests} more answers`, () => live().ok >= ok + requests, 60_000);
  };
  await eventually('the load runs', () => live().ok > 100, 20_000);
  await action(more);
  process.kill((await workload(client.name)).pid, 'SIGTERM');
  const text = await eventually('the load says what it saw', () => readFileSync(file, 'utf8'), 20_000);
  await endProcess(client.child);
  return JSON.parse(text) as RateReport;
}

async function workload(name: string): Promise<{ readonly pid: number }> {
  const found = (await mesh.status()).workloads.find((each) => each.name === name);
  if (found === undefined) throw new Error(`there is no workload ${name}`);
  return found;
}

interface WaypointStatus {
  readonly name: string;
  readonly pid: number;
  readonly ready: boolean;
}

async function waypoints(): Promise<readonly WaypointStatus[]> {
  return ((await mesh.status()) as unknown as { readonly waypoints: readonly WaypointStatus[] }).waypoints;
}

/** Requests that a server had more than once. */
async function repeated(...servers: readonly string[]): Promise<number> {
  const { workloads } = await mesh.status();
  const urls = servers.map(
    (name) => `http://${workloads.find((each) => each.name === name)?.addresses[0]}:8080/repeated`,
  );
  const replies = await callFrom(
    mesh,
    'shop/web',
    urls.map((url) => ({ url })),
  );
  return replies.reduce((sum, { body }) => sum + Number(body), 0);
}

test('weights are edited ten times under 1000 requests a second: none fails, and each edit takes effect', {
  timeout: 120_000,
}, async () => {
  const report = await under({ perSecond: 1000, connections: 32 }, async (more) => {
    for (let edit = 0; edit < 10; edit += 1) {
      mesh.write('routes.yaml', edit % 2 === 0 ? route(0, 100) : route(100, 0));
      await more(300);
    }
    mesh.write('routes.yaml', route(0, 100));
    await eventually('all go to v2', async () => {
      const replies = await callFrom(mesh, 'shop/web', [{ url: 'http://echo.shop/', count: 20 }]);
      return replies.every(({ headers }) => headers['x-answered-by'] === 'echo-c');
    });
  });
  expect(report.errors).toEqual([]);
  expect(report.failed).toBe(0);
  expect(Object.keys(report.answeredBy).sort()).toEqual(['echo-a', 'echo-b', 'echo-c']);
  mesh.write('routes.yaml', route(50, 50));
});

test('the waypoints are restarted under load and no request fails', { timeout: 180_000 }, async () => {
  const before = await waypoints();
  const report = await under({ perSecond: 300, connections: 16 }, async (more) => {
    await more(200);
    expect((await mesh.tulle('restart', 'waypoint/shop/waypoint')).code).toBe(0);
    await more(200);
  });
  expect(report.errors).toEqual([]);
  const after = await waypoints();
  expect(after.every(({ pid, ready }) => ready && !before.some((old) => old.pid === pid))).toBe(true);
});

test('one of two waypoints is killed: what it had in hand is lost at most, and new connections go to the other', {
  timeout: 120_000,
}, async () => {
  const connections = 16;
  const report = await under({ perSecond: 300, connections }, async (more) => {
    const [victim] = await waypoints();
    process.kill(victim?.pid ?? 0, 'SIGKILL');
    await more(600);
  });
  // Each connection can lose what it had in flight; and what comes in its place once more, while the kernel takes the process apart.
  expect(report.failed, report.errors.join('\n')).toBeLessThanOrEqual(2 * connections);
  await eventually('both run again', async () => (await waypoints()).every(({ ready }) => ready), 30_000);
});

test('a server is killed: requests that are safe to repeat are all saved', { timeout: 120_000 }, async () => {
  mesh.write('routes.yaml', route(100, 0));
  const report = await under({ perSecond: 300, connections: 16 }, async (more) => {
    await more(100);
    process.kill((await workload('echo-b')).pid, 'SIGKILL');
    await more(600);
  });
  expect(report.errors).toEqual([]);
  await server('echo-b', 'v1', 'n2');
});

test('a node is killed, its ztunnel and its servers at once: requests that are safe to repeat are all saved', {
  timeout: 120_000,
}, async () => {
  mesh.write('routes.yaml', route(100, 0));
  const report = await under({ perSecond: 300, connections: 16 }, async (more) => {
    await more(100);
    const { nodes } = await mesh.status();
    const ztunnel = nodes.find(({ name }) => name === 'n2')?.ztunnel;
    for (const pid of [ztunnel?.pid ?? 0, (await workload('echo-b')).pid]) process.kill(pid, 'SIGKILL');
    await more(600);
  });
  expect(report.errors).toEqual([]);
  await server('echo-b', 'v1', 'n2');
});

test('a server is killed: nothing that is not safe to repeat reaches another twice', {
  timeout: 120_000,
}, async () => {
  const report = await under({ perSecond: 300, connections: 16, method: 'POST' }, async (more) => {
    await more(100);
    process.kill((await workload('echo-b')).pid, 'SIGKILL');
    await more(600);
  });
  expect(report.failed, report.errors.join('\n')).toBeLessThanOrEqual(32);
  expect(await repeated('echo-a', 'echo-c')).toBe(0);
});

function route(v1: number, v2: number): string {
  return `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: echo, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: echo}]
  rules:
  - retry: {codes: [503], attempts: 3}
    backendRefs: [{name: echo-v1, port: 80, weight: ${v1}}, {name: echo-v2, port: 80, weight: ${v2}}]
`;
}

const service = (name: string, selector: string): string => `apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: shop}
spec: {selector: {${selector}}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
`;

const MESH = `${namespaceYaml('shop', true, 'istio.io/use-waypoint: waypoint')}${service('echo', 'app: echo')}${service('echo-v1', 'version: v1')}${service('echo-v2', 'version: v2')}apiVersion: v1
kind: ConfigMap
metadata: {name: two, namespace: shop}
data: {deployment: "spec: {replicas: 2}"}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: tulle-waypoint
  infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: two}}
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`;
