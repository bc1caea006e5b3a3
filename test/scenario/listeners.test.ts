import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CommandResult, mustRun, runCommand } from '#test/kit/command.ts';
import { type Mesh, type MeshStatus, openMesh } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, serviceYaml } from '#test/kit/yaml.ts';

/** Everything that a running mesh listens on, and what answers there, and to whom. */

const GATEWAY = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate, namespace: shop}
spec: {gatewayClassName: tulle-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`;

const DNS = ['udp 0.0.0.0:53', 'udp [::]:53', 'tcp *:53'];
const OPERATOR = ['tcp 127.0.0.1:15000', 'tcp *:15020', 'tcp *:15021'];

/** By what the namespace is of. A socket that is not here is one too many; the table in docs/operations.md has the same ports. */
const LISTENERS = {
  'control plane': ['tcp 10.240.0.2:15012'],
  node: [...DNS, ...OPERATOR],
  'enrolled pod': [
    ...['tcp *:15001', 'tcp *:15006', 'tcp *:15008'],
    ...['tcp 127.0.0.1:15053', 'tcp [::1]:15053', 'udp 127.0.0.1:15053', 'udp [::1]:15053'],
  ],
  waypoint: [...OPERATOR, 'tcp *:15008'],
  'other pod': [],
} as const;

let mesh: Mesh;
let status: MeshStatus;
beforeAll(async () => {
  const yaml = namespaceYaml('shop', true) + serviceYaml('shop', 'catalog') + namespaceYaml('out', false);
  mesh = await openMesh({ files: { 'mesh.yaml': yaml, 'gateway.yaml': GATEWAY } });
  await mesh.run(
    {
      namespace: 'shop',
      name: 'catalog-1',
      node: 'n1',
      labels: { app: 'catalog' },
      command: ['sleep', 'infinity'],
    },
    true,
  );
  await mesh.run({ namespace: 'shop', name: 'web-1', node: 'n2', command: serverCommand('web') }, true);
  await mesh.run({ namespace: 'out', name: 'out-1', node: 'n1', command: ['sleep', 'infinity'] }, false);
  status = await mesh.status();
});
afterAll(async () => await mesh?.[Symbol.asyncDispose]());

function namespaceOf(workload: string): string {
  const found = status.workloads.find(({ namespace, name }) => `${namespace}/${name}` === workload);
  if (found === undefined) throw new Error(`${workload} is not there`);
  return found.netns;
}

function addressOf(workload: string): string {
  return (
    status.workloads.find(({ namespace, name }) => `${namespace}/${name}` === workload)?.addresses[0] ?? ''
  );
}

async function within(netns: string, ...command: readonly string[]): Promise<CommandResult> {
  return await runCommand(['ip', 'netns', 'exec', netns, ...command], 20_000);
}

/** `tcp ADDRESS:PORT`, by what they are. */
async function listening(netns: string): Promise<readonly string[]> {
  const { stdout } = await within(netns, 'ss', '-Hlntu');
  return [
    ...new Set(
      stdout
        .trim()
        .split('\n')
        .filter(Boolean)
        .map((line) => {
          const [protocol, , , , local] = line.trim().split(/\s+/);
          return `${protocol} ${local}`;
        }),
    ),
  ].sort();
}

test.each([
  { of: 'control plane', netns: () => status.controlPlane.netns },
  { of: 'node', netns: () => status.nodes[0]?.netns ?? '' },
  { of: 'enrolled pod', netns: () => namespaceOf('shop/catalog-1') },
  { of: 'waypoint', netns: () => status.waypoints[0]?.replicas[0]?.netns ?? '' },
  { of: 'other pod', netns: () => namespaceOf('out/out-1') },
] as const)('in the namespace of a $of these sockets listen, and no others', async ({ of, netns }) => {
  expect(await listening(netns())).toEqual([...LISTENERS[of]].sort());
});

test('the ports are those that the operator is told of', () => {
  const page = readFileSync(join(import.meta.dirname, '../../docs/operations.md'), 'utf8');
  const table = page.slice(page.indexOf('\n## Ports'), page.indexOf('\n## Addresses'));
  const told = new Set(
    [...table.matchAll(/^\| ([^|]*)\|/gm)].flatMap(([, cell = '']) => cell.match(/\d+/g) ?? []),
  );
  const open = new Set(
    Object.values(LISTENERS)
      .flat()
      .map((socket) => socket.slice(socket.lastIndexOf(':') + 1)),
  );
  expect([...told].sort()).toEqual([...open].sort());
});

test('Unix sockets have a path, which only root can reach; nothing in a pod listens on one', async () => {
  const folders = [mesh.state, join(mesh.state, 'run')];
  expect(folders.map((folder) => statSync(folder).mode & 0o777)).toEqual([0o700, 0o700]);
  const found = (await mustRun(['find', mesh.state, '-type', 's', '-printf', '%m %u %f\n']))
    .trim()
    .split('\n');
  expect(found.length).toBeGreaterThan(5);
  for (const socket of found) expect(socket).toMatch(/^600 root /);
  for (const pod of ['shop/catalog-1', 'out/out-1'])
    expect((await within(namespaceOf(pod), 'ss', '-Hlx')).stdout).toBe('');
  for (const { netns } of status.nodes)
    expect((await within(netns, 'ss', '-Hlx')).stdout).not.toContain(' @'); // No abstract name, which has no mode.
  const { stdout } = await mesh.exec('shop/catalog-1', ['ls', '-A', mesh.state]);
  expect(stdout).toBe('');
});

/** What `curl` has as the status; 000 for none. */
async function ask(netns: string, url: string, method = 'GET'): Promise<string> {
  const args = ['curl', '-s', '-o', '/dev/null', '-m', '3', '-w', '%{http_code}', '-X', method, url];
  return (await within(netns, ...args)).stdout;
}

/** From a pod in the mesh, from one outside of it, from another node. */
function origins(): readonly string[] {
  return [namespaceOf('shop/web-1'), namespaceOf('out/out-1'), status.nodes[1]?.netns ?? ''];
}

test('from elsewhere readiness and metrics answer, and nothing else', async () => {
  const node = status.nodes[0]?.address ?? '';
  const waypoint = status.waypoints[0]?.replicas[0]?.addresses[0] ?? '';
  const seen = await Promise.all(
    origins().flatMap((from) =>
      [node, waypoint].map(async (host) => [
        await ask(from, `http://${host}:15021/healthz/ready`),
        await ask(from, `http://${host}:15020/metrics`),
        await ask(from, `http://${host}:15000/config_dump`),
        await ask(from, `http://${host}:15020/config_dump`),
        await ask(from, `http://${host}:15021/debug/pprof`),
      ]),
    ),
  );
  expect(seen).toEqual(Array.from({ length: 6 }, () => ['200', '200', '000', '404', '404']));
});

test('what would change something is refused on every port', async () => {
  const node = status.nodes[0];
  const own = node?.netns ?? '';
  const tries = [
    ...[
      '/logging',
      '/logging?level=debug',
      '/quitquitquit',
      '/drain',
      '/hand-over/sockets',
      '/config_dump',
    ].map((path) => `127.0.0.1:15000${path}`),
    ...['15020/metrics', '15021/healthz/ready', '15021/quitquitquit'].map(
      (path) => `${node?.address}:${path}`,
    ),
  ];
  for (const method of ['POST', 'PUT', 'DELETE'])
    for (const path of tries)
      expect([`${method} ${path}`, await ask(own, `http://${path}`, method)]).toEqual([
        `${method} ${path}`,
        expect.stringMatching(/^40[45]$/),
      ]);
});

test("the mesh's own ports in a pod take no connection from outside that was not meant for them", async () => {
  const pod = addressOf('shop/catalog-1');
  for (const from of origins())
    for (const port of [15_001, 15_006, 15_053])
      expect(await ask(from, `http://${pod}:${port}/`)).toBe('000');
});

test('the control plane shows nothing to who has no token, and no pages to anyone', async () => {
  const address = `https://${status.controlPlane.address.replace(/:\d+$/, '')}:15012`;
  for (const from of origins())
    for (const path of [
      '/debug/syncz',
      '/debug/config_dump',
      '/status',
      '/ca',
      '/resources',
      '/metrics',
      '/',
    ]) {
      const answer = await within(from, 'curl', '-sk', '--http2', '-m', '3', `${address}${path}`);
      expect([path, answer.stdout]).toEqual([path, '']);
    }
});
