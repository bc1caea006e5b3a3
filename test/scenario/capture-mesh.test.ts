import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { METHODS } from '#test/kit/capture-bed.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, type WorkloadStatus } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { PYTHON, SOCKETS, type SocketReply } from '#test/kit/socket-calls.ts';
import { namespaceYaml, peerAuthenticationYaml, policyYaml, serviceYaml } from '#test/kit/yaml.ts';

const DENY = policyYaml('shop', 'no-tcp', '{action: DENY, rules: [{to: [{operation: {ports: ["9000"]}}]}]}');

/** `shop/web-1` on n1 calls `shop/catalog-1` on n2, which serves HTTP on 8080; 9000 is denied. */
describe.each(METHODS)('%s', (method) => {
  let mesh: Mesh;
  let catalog: WorkloadStatus;
  let vip: readonly string[];

  beforeAll(async () => {
    const strict = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');
    mesh = await openMesh({
      files: { 'mesh.yaml': namespaceYaml('shop', true) + serviceYaml('shop', 'catalog') + strict + DENY },
      flags: ['--capture', method],
    });
    const labels = { app: 'catalog' };
    [, catalog] = await Promise.all([
      mesh.run({ namespace: 'shop', name: 'web-1', node: 'n1', command: ['sleep', 'infinity'] }, true),
      mesh.run(
        { namespace: 'shop', name: 'catalog-1', node: 'n2', labels, command: serverCommand('c') },
        true,
      ),
    ]);
    vip = (await mesh.status()).services.find(({ name }) => name === 'catalog')?.addresses ?? [];
    await eventually('the catalog answers', async () => (await curl('http://catalog.shop:8080/')).code === 0);
  });
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  function curl(url: string): ReturnType<Mesh['exec']> {
    return mesh.exec('shop/web-1', ['curl', '-gsS', '-m', '8', '-w', ' %{remote_ip}', url]);
  }

  /** Errors of connections to a destination, in a node's log. */
  function errorsOf(node: string, port: number): readonly unknown[] {
    return mesh
      .accessLog(node)
      .filter(({ error }) => error !== undefined)
      .filter((record) =>
        [record['dst.addr'], record['dst.hbone_addr']].some((to) => String(to).endsWith(`:${port}`)),
      )
      .map(({ error }) => error);
  }

  test('status names the method', async () => {
    const captures = (await mesh.status()).workloads.map(({ capture }) => capture);
    expect(captures).toEqual([method, method]);
  });

  test('a name, an address of the service and one of the pod lead there, and are what the caller sees', async () => {
    const hosts = [...vip, ...catalog.addresses];
    expect(hosts.length).toBeGreaterThanOrEqual(3);
    for (const host of hosts) {
      const { code, stdout } = await curl(`http://${host.includes(':') ? `[${host}]` : host}:8080/`);
      expect([host, code]).toEqual([host, 0]);
      const [line = '', remote] = stdout.split('\n');
      expect(remote?.trim()).toBe(host);
      expect(JSON.parse(line).remoteAddress).toMatch(/10\.244\.|fd/);
    }
  });

  test('both ends of a tunnel see each other; with eBPF, by port as well', async () => {
    const server = {
      namespace: 'shop',
      name: 'seen-1',
      node: 'n2',
      command: [PYTHON, SOCKETS, 'serve', '9100'],
    };
    const { addresses } = await mesh.run(server, true);
    const calls = addresses.flatMap((host) => [
      { host, port: 9100 },
      { host, port: 9100 },
    ]);
    const replies = await eventually('the server answers', async () => {
      const { stdout } = await mesh.exec('shop/web-1', [PYTHON, SOCKETS, 'call', JSON.stringify(calls)]);
      const all = JSON.parse(stdout) as SocketReply[];
      return all.every(({ reply }) => reply === 'pingend') && all;
    });
    for (const [index, { peer, local, server: seen }] of replies.entries()) {
      expect(peer).toEqual({ ip: calls[index]?.host, port: 9100 });
      expect(seen?.peer.ip).toBe(local.ip);
      if (method === 'ebpf') expect(seen).toMatchObject({ accepted: local, peer: local });
    }
  });

  test.each([
    { what: 'nobody listens on', port: 7999, error: /refused/i },
    { what: 'policy denies', port: 9000, error: /denied/i },
  ])('a port that $what is refused over both families, and the log says so', async ({ port, error }) => {
    for (const host of catalog.addresses) {
      const { code } = await curl(`http://${host.includes(':') ? `[${host}]` : host}:${port}/`);
      expect([7, 52, 56]).toContain(code); // connected to the ztunnel, then closed or reset, perhaps at once
    }
    await eventually('both are in the log', () => errorsOf('n2', port).length >= 2);
    for (const found of errorsOf('n2', port)) expect(found).toMatch(error);
  });

  test('where nobody is, the caller is told, and the log says so', async () => {
    const [host = ''] = catalog.addresses;
    const { code } = await curl(`http://${host.replace(/\d+$/, '250')}:7998/`);
    expect([7, 28, 52, 56]).toContain(code);
    await eventually('it is in the log', () => errorsOf('n1', 7998).length > 0);
  });

  test('the mesh answers DNS over UDP and TCP, IPv4 and IPv6, whichever resolver is asked', async () => {
    const asked = ['10.244.1.1', '192.0.2.53', 'fd00:10:244:1::1', '2001:db8::53'].flatMap((server) =>
      ['udp', 'tcp'].flatMap((transport) =>
        [1, 28].map((type) => ({ server, transport, type, name: 'catalog.shop.svc.cluster.local' })),
      ),
    );
    const { stdout, stderr } = await mesh.exec('shop/web-1', [
      ...[PYTHON, SOCKETS, 'resolve', JSON.stringify(asked)],
    ]);
    expect(stderr).toBe('');
    const answers = JSON.parse(stdout) as string[][];
    expect(asked.map((question, index) => ({ ...question, answer: answers[index] }))).toEqual(
      asked.map((question) => ({
        ...question,
        answer: vip.filter((ip) => ip.includes(':') === (question.type === 28)),
      })),
    );
  });
});
