import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { endProcess, runCommand, startLogged } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, type WorkloadStatus } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, serviceYaml } from '#test/kit/yaml.ts';

/** Two nodes, a caller and a server on each, an outsider: the mesh's main job. */
describe('a mesh of two nodes', () => {
  let mesh: Mesh;
  let web: WorkloadStatus;
  let catalog: WorkloadStatus;

  beforeAll(async () => {
    mesh = await openMesh({
      files: {
        'mesh.yaml':
          namespaceYaml('shop', true) + namespaceYaml('outside', false) + serviceYaml('shop', 'catalog'),
      },
    });
    const server = { namespace: 'shop', serviceAccount: 'catalog', labels: { app: 'catalog' } };
    catalog = await mesh.run(
      { ...server, name: 'catalog-1', node: 'n2', command: serverCommand('catalog-1') },
      true,
    );
    const idle = { command: ['sleep', 'infinity'] };
    web = await mesh.run(
      { namespace: 'shop', serviceAccount: 'web', name: 'web-1', node: 'n1', ...idle },
      true,
    );
    await mesh.run({ namespace: 'shop', serviceAccount: 'web', name: 'web-2', node: 'n2', ...idle }, true);
    await mesh.run({ namespace: 'outside', name: 'outsider', node: 'n1', ...idle }, false);
    await eventually(
      'catalog answers',
      async () => (await get('shop/web-1', 'http://catalog.shop:8080/')).code === 0,
    );
  });

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  const get = (from: string, url: string, ...flags: string[]) =>
    mesh.exec(from, ['curl', '-sS', '-m', '5', ...flags, url]);

  test.each([
    'http://catalog.shop:8080/',
    'http://catalog:8080/',
    'http://catalog.shop.svc:8080/',
    'http://catalog.shop.svc.cluster.local:8080/',
  ])('inside a workload, curl %s just works', async (url) => {
    const { code, stdout, stderr } = await get('shop/web-1', url);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({ name: 'catalog-1' });
  });

  test('the application sees the real address of its caller, over IPv4 and IPv6', async () => {
    for (const [family, address] of [
      ['-4', web.addresses[0]],
      ['-6', web.addresses[1]],
    ] as const) {
      const { stdout } = await get('shop/web-1', 'http://catalog.shop:8080/', family);
      const seen = (JSON.parse(stdout) as { remoteAddress: string }).remoteAddress.replace('::ffff:', '');
      expect(seen).toBe(address);
    }
  });

  test('a workload is reached by its own address too', async () => {
    const { stdout } = await get('shop/web-1', `http://${catalog.addresses[0]}:8080/`);
    expect(JSON.parse(stdout)).toMatchObject({ name: 'catalog-1' });
  });

  test('workloads on one node reach each other', async () => {
    expect((await get('shop/web-2', 'http://catalog.shop:8080/')).code).toBe(0);
  });

  test('a workload outside the mesh resolves names and is let in where nothing forbids it', async () => {
    const { code, stdout } = await get('outside/outsider', 'http://catalog.shop:8080/');
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ name: 'catalog-1' });
  });

  test('between the nodes there is TLS 1.3 on 15008 and not one byte of the application', async () => {
    const marker = 'PLAINTEXT-MARKER-7d1c';
    const file = join(mesh.directory, 'between.pcap');
    const { netns } = (await mesh.status()).nodes.find((node) => node.name === 'n1') ?? { netns: '' };
    const capture = startLogged(
      ['nsenter', `--net=/run/netns/${netns}`, 'tcpdump', '-i', 'any', '-U', '-w', file, 'tcp'],
      join(mesh.directory, 'tcpdump.log'),
    );
    const log = () => readFileSync(join(mesh.directory, 'tcpdump.log'), 'utf8');
    await eventually('tcpdump listens', () => log().includes('listening on'));
    expect(
      (await get('shop/web-1', 'http://catalog.shop:8080/', '-H', `x-marker: ${marker}`)).stdout,
    ).toContain(marker);
    await eventually('the capture holds the tunnel', async () => (await packets(file, 'port 15008')) > 0);
    await endProcess(capture, 'SIGINT');
    expect(readFileSync(file).includes(marker)).toBe(false);
    expect(await packets(file, 'port 8080')).toBe(0);
  });

  test('the access log names both identities, the service and the authority', async () => {
    await get('shop/web-1', 'http://catalog.shop:8080/');
    const record = await eventually('a record of the outbound connection', () =>
      mesh
        .accessLog('n1')
        .findLast((line) => line['direction'] === 'outbound' && line['dst.service'] !== undefined),
    );
    expect(record).toMatchObject({
      message: 'connection complete',
      'src.workload': 'web-1',
      'src.namespace': 'shop',
      'src.identity': 'spiffe://cluster.local/ns/shop/sa/web',
      'dst.workload': 'catalog-1',
      'dst.identity': 'spiffe://cluster.local/ns/shop/sa/catalog',
      'dst.service': 'catalog.shop.svc.cluster.local',
    });
    expect(String(record['dst.addr'])).toMatch(/:15008$/);
    expect(String(record['dst.hbone_addr'])).toMatch(/:8080$/);
  });

  test('a closed port is refused, not left hanging', async () => {
    const { code } = await get('shop/web-1', `http://${catalog.addresses[0]}:9999/`);
    expect([7, 52, 56]).toContain(code);
  });

  test('half of a connection can be closed while the other goes on', async () => {
    const script = `import socket,sys
s=socket.create_connection(('catalog.shop',9000)); s.sendall(b'x'*300000); s.shutdown(socket.SHUT_WR)
n=0
while True:
    d=s.recv(65536)
    if not d: break
    n+=len(d)
print(n)`;
    const { stdout, stderr } = await mesh.exec('shop/web-1', ['python3', '-c', script]);
    expect({ stdout: stdout.trim(), stderr }).toEqual({ stdout: '300000', stderr: '' });
  });

  test('a reset by the application arrives as a reset', async () => {
    const script = `import socket
s=socket.create_connection(('catalog.shop',9000)); s.sendall(b'reset\\n')
try:
    print('end' if s.recv(100)==b'' else 'data')
except ConnectionResetError:
    print('reset')`;
    const { stdout } = await mesh.exec('shop/web-1', ['python3', '-c', script]);
    expect(stdout.trim()).toBe('reset');
  });
});

async function packets(file: string, filter: string): Promise<number> {
  const { stdout } = await runCommand(['tcpdump', '-nn', '-r', file, filter]);
  return stdout.split('\n').filter((line) => line !== '').length;
}
