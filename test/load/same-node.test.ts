import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { endProcess, mustRun } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { underLoad } from '#test/kit/load.ts';
import { type Mesh, openMesh, type WorkloadStatus } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, peerAuthenticationYaml, policyYaml, serviceYaml } from '#test/kit/yaml.ts';

/** Who calls: all on one node with two servers, of which `tunnelled-1` has asked for tunnels. */
const SOURCES = ['shop/web-1', 'shop/other-1', 'pay/pay-1', 'outside/outsider'] as const;
type Source = (typeof SOURCES)[number];

const SPACES = namespaceYaml('shop', true) + namespaceYaml('pay', true) + namespaceYaml('outside', false);
const SERVICES = serviceYaml('shop', 'catalog') + serviceYaml('shop', 'tunnelled');
const IDLE = { command: ['sleep', 'infinity'] };

const ROWS: readonly {
  readonly policy: string;
  readonly yaml: string;
  readonly allowed: readonly Source[];
}[] = [
  { policy: 'there is none', yaml: '', allowed: SOURCES },
  {
    policy: 'one principal is allowed',
    yaml: policyYaml(
      'shop',
      'p',
      '{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}',
    ),
    allowed: ['shop/web-1'],
  },
  {
    policy: 'one namespace is denied',
    yaml: policyYaml('shop', 'p', '{action: DENY, rules: [{from: [{source: {namespaces: [pay]}}]}]}'),
    allowed: ['shop/web-1', 'shop/other-1', 'outside/outsider'],
  },
  {
    policy: 'another port is allowed',
    yaml: policyYaml('shop', 'p', '{rules: [{to: [{operation: {ports: ["8080"]}}]}]}'),
    allowed: [],
  },
  {
    policy: 'the port is allowed to a namespace',
    yaml: policyYaml(
      'shop',
      'p',
      '{rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {ports: ["9000"]}}]}]}',
    ),
    allowed: ['shop/web-1', 'shop/other-1'],
  },
  {
    policy: 'mTLS is strict',
    yaml: peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}'),
    allowed: ['shop/web-1', 'shop/other-1', 'pay/pay-1'],
  },
  {
    policy: 'the policy is broken and has no good version',
    yaml: policyYaml('shop', 'p', '{action: PERMIT, rules: [{}]}'),
    allowed: [],
  },
];

const PING = `import socket,sys
s=socket.create_connection((sys.argv[1],9000),3); s.settimeout(3); s.sendall(b'ping')
sys.exit(0 if s.recv(10) else 1)`;

/** Talks until it is cut, and says when that was (milliseconds since the epoch). */
const TALK = `import socket,time,sys
s=socket.create_connection((sys.argv[1],9000)); s.settimeout(5)
try:
    while time.time() < float(sys.argv[2]):
        s.sendall(b'ping')
        if not s.recv(100): print('closed'); sys.exit(0)
        time.sleep(0.01)
    print('alive')
except OSError as e: print('cut', type(e).__name__, int(time.time()*1000))`;

describe('two pods of one node', () => {
  let mesh: Mesh;
  let catalog: WorkloadStatus;
  let web: WorkloadStatus;

  beforeAll(async () => {
    // Whichever of them accepts has to reach all pods.
    vi.stubEnv('ZTUNNEL_WORKER_THREADS', '2');
    mesh = await openMesh({ files: { 'mesh.yaml': SPACES + SERVICES }, flags: ['--nodes', 'n1'] });
    const server = { namespace: 'shop', serviceAccount: 'catalog' };
    [catalog, web] = await Promise.all([
      mesh.run(
        { ...server, name: 'catalog-1', labels: { app: 'catalog' }, command: serverCommand('catalog-1') },
        true,
      ),
      mesh.run({ namespace: 'shop', name: 'web-1', serviceAccount: 'web', ...IDLE }, true),
      mesh.run(
        {
          ...server,
          name: 'tunnelled-1',
          labels: { app: 'tunnelled', 'tulle.dev/same-node': 'tunnel' },
          command: serverCommand('tunnelled-1'),
        },
        true,
      ),
      mesh.run({ namespace: 'shop', name: 'other-1', serviceAccount: 'other', ...IDLE }, true),
      mesh.run({ namespace: 'pay', name: 'pay-1', serviceAccount: 'pay', ...IDLE }, true),
      mesh.run({ namespace: 'outside', name: 'outsider', ...IDLE }, false),
    ]);
    for (const host of ['catalog.shop', 'tunnelled.shop'])
      await eventually(`${host} answers`, () => ping('shop/web-1', host), 20_000);
  });

  afterAll(async () => {
    vi.unstubAllEnvs();
    await mesh?.[Symbol.asyncDispose]();
  });

  async function ping(from: string, host: string): Promise<boolean> {
    return (await mesh.exec(from, ['python3', '-c', PING, host], 15_000)).code === 0;
  }

  async function allowed(host: string): Promise<readonly Source[]> {
    const answers = await Promise.all(SOURCES.map((source) => ping(source, host)));
    return SOURCES.filter((_, index) => answers[index]);
  }

  /** Puts policies in place of all others, and waits until every client has taken them. */
  async function apply(yaml: string): Promise<void> {
    mesh.write('policies.yaml', yaml);
    const names = [...yaml.matchAll(/kind: (\w+)\nmetadata: \{name: ([\w-]+), namespace: ([\w-]+)/g)].map(
      ([, kind, name, namespace]) => `${kind} ${namespace}/${name}`,
    );
    await mesh.until(
      `the policies are: ${names.join(', ')}`,
      ({ policies }) => policies.map(({ object }) => object).join() === names.join(),
    );
  }

  /** Records that were written by what was done. */
  async function recordsOf(
    act: () => Promise<unknown>,
    count: number,
  ): Promise<readonly Readonly<Record<string, unknown>>[]> {
    // Lines come a moment after what they tell of.
    const startedAtMs = Date.now();
    await act();
    return await eventually(`${count} records`, () => {
      const since = mesh.accessLog('n1').filter(({ time }) => Date.parse(String(time)) >= startedAtMs);
      return since.length >= count && since;
    });
  }

  test('the server sees the caller’s address, and one record tells of both', async () => {
    const curl = ['curl', '-sS', '-m', '5', 'http://catalog.shop:8080/'];
    const answers: string[] = [];
    const records = await recordsOf(async () => {
      answers.push((await mesh.exec('shop/web-1', curl)).stdout);
    }, 1);
    const seen = (JSON.parse(answers[0] ?? '{}') as { remoteAddress: string }).remoteAddress;
    expect(web.addresses).toContain(seen.replace('::ffff:', ''));
    expect(records).toHaveLength(1);
    expect(records[0]).toMatchObject({
      message: 'connection complete',
      direction: 'outbound',
      hop: 'same-node',
      'src.workload': 'web-1',
      'src.identity': 'spiffe://cluster.local/ns/shop/sa/web',
      'dst.workload': 'catalog-1',
      'dst.identity': 'spiffe://cluster.local/ns/shop/sa/catalog',
      'dst.service': 'catalog.shop.svc.cluster.local',
      reason: 'no-allow-policy',
    });
    expect(String(records[0]?.['dst.addr'])).toMatch(/:8080$/);
    expect(records[0]).not.toHaveProperty('dst.hbone_addr');
  });

  test('a pod that asks for tunnels gets one, with a record at each end', async () => {
    const records = await recordsOf(() => ping('shop/web-1', 'tunnelled.shop'), 2);
    expect(records.map(({ direction }) => direction).toSorted()).toEqual(['inbound', 'outbound']);
    for (const record of records) expect(record).not.toHaveProperty('hop');
  });

  test('explain says where it goes, and why there is a tunnel', async () => {
    const near = await mesh.tulle('explain', '--from', 'shop/web-1', '--to', 'catalog.shop:9000');
    expect(near.stdout).toContain('hop   on the node to shop/catalog-1');
    const far = await mesh.tulle('explain', '--from', 'shop/web-1', '--to', 'tunnelled.shop:9000');
    expect(far.stdout).toContain('says tulle.dev/same-node: tunnel');
  });

  test('both IP families and the pod’s own address work, and calls to oneself', async () => {
    for (const address of catalog.addresses) expect(await ping('shop/web-1', address)).toBe(true);
    expect(await ping('shop/catalog-1', 'catalog.shop')).toBe(true);
  });

  test.each(ROWS)('when $policy, the same callers are let in as through a tunnel', async (row) => {
    await apply(row.yaml);
    await eventually(
      `allowed: ${row.allowed.join(', ')}`,
      async () => {
        const near = await allowed('catalog.shop');
        const far = await allowed('tunnelled.shop');
        if (near.join() !== row.allowed.join() || far.join() !== row.allowed.join())
          throw new Error(`allowed are ${near.join(', ')}; through the tunnel ${far.join(', ')}`);
        return true;
      },
      20_000,
    );
  });

  test('a denial names its policy, and is a reset', async () => {
    await apply(policyYaml('shop', 'no', '{action: DENY, rules: [{from: [{source: {namespaces: [pay]}}]}]}'));
    await eventually('pay is denied', async () => !(await ping('pay/pay-1', 'catalog.shop')));
    const record = await eventually('its record', () =>
      mesh.accessLog('n1').findLast((line) => line['policy'] === 'shop/no'),
    );
    expect(record).toMatchObject({
      hop: 'same-node',
      response_flags: 'DENY',
      reason: 'denied-by-policy',
      'src.identity': 'spiffe://cluster.local/ns/pay/sa/pay',
    });
  });

  test('a connection that a new policy denies is cut within a second, another lives on', async () => {
    await apply('');
    const until = `${Date.now() / 1000 + 8}`;
    const talk = (from: string) =>
      mesh.exec(from, ['python3', '-c', TALK, 'catalog.shop', until], 30_000).then(({ stdout }) => stdout);
    const before = await establishedIn('shop/catalog-1');
    const [pay, own] = [talk('pay/pay-1'), talk('shop/web-1')];
    await eventually('two are open', async () => (await establishedIn('shop/catalog-1')) >= before + 2);
    const writtenAtMs = Date.now();
    mesh.write(
      'policies.yaml',
      policyYaml('shop', 'p', '{action: DENY, rules: [{from: [{source: {namespaces: [pay]}}]}]}'),
    );
    const [, error, cutAtMs] = /^cut (\w+) (\d+)$/.exec((await pay).trim()) ?? [];
    expect(error).toBe('ConnectionResetError');
    expect(Number(cutAtMs) - writtenAtMs).toBeLessThan(1_000);
    expect((await own).trim()).toBe('alive');
    await apply('');
  });

  /** Connections that a workload's server holds on port 9000. */
  async function establishedIn(workload: string): Promise<number> {
    const { stdout } = await mesh.exec(workload, [
      'ss',
      '-Htn',
      'state',
      'established',
      'sport',
      '=',
      ':9000',
    ]);
    return stdout.split('\n').filter((line) => line !== '').length;
  }

  test('200 MB come back as they went, each direction ending by itself', async () => {
    const script = `import socket,hashlib,threading,os
s=socket.create_connection(('catalog.shop',9000)); block=os.urandom(1<<20); sent=hashlib.sha256()
def send():
    for i in range(200):
        b=i.to_bytes(4,'big')+block; sent.update(b); s.sendall(b)
    s.shutdown(socket.SHUT_WR)
t=threading.Thread(target=send); t.start(); got=hashlib.sha256(); n=0
while True:
    d=s.recv(1<<18)
    if not d: break
    got.update(d); n+=len(d)
t.join(); print(n, got.digest()==sent.digest())`;
    const records = await recordsOf(async () => {
      const { stdout, stderr } = await mesh.exec('shop/web-1', ['python3', '-c', script], 60_000);
      expect({ stdout: stdout.trim(), stderr }).toEqual({
        stdout: `${200 * ((1 << 20) + 4)} True`,
        stderr: '',
      });
    }, 1);
    const bytes = 200 * ((1 << 20) + 4);
    expect(records[0]).toMatchObject({ hop: 'same-node', bytes_sent: bytes, bytes_recv: bytes });
  });

  test('a reset by the application arrives as a reset', async () => {
    const script = `import socket
s=socket.create_connection(('catalog.shop',9000)); s.sendall(b'reset\\n')
try:
    print('end' if s.recv(100)==b'' else 'data')
except ConnectionResetError:
    print('reset')`;
    expect((await mesh.exec('shop/web-1', ['python3', '-c', script])).stdout.trim()).toBe('reset');
  });

  test('metrics count it for both ends, as what it is', async () => {
    const netns = (await mesh.status()).nodes[0]?.netns ?? '';
    const opened = async (reporter: string): Promise<number> => {
      const text = await mustRun([
        ...['nsenter', `--net=/run/netns/${netns}`, 'curl', '-sS', 'http://127.0.0.1:15020/metrics'],
      ]);
      const wanted = [
        `reporter="${reporter}"`,
        'source_principal="spiffe://cluster.local/ns/shop/sa/other"',
        'destination_service_name="catalog"',
        'destination_workload="catalog-1"',
        'connection_security_policy="same_node"',
      ];
      return text
        .split('\n')
        .filter((line) => line.startsWith('istio_tcp_connections_opened_total{'))
        .filter((line) => wanted.every((label) => line.includes(label)))
        .reduce((sum, line) => sum + Number(line.split(' ')[1]), 0);
    };
    const before = [await opened('source'), await opened('destination')];
    expect(await ping('shop/other-1', 'catalog.shop')).toBe(true);
    await eventually('one more at both ends', async () => {
      const now = [await opened('source'), await opened('destination')];
      return now.every((count, end) => count === (before[end] ?? 0) + 1);
    });
  });

  test('a restart of the ztunnel under load fails no new connection, and it goes on as before', async () => {
    const to = { url: 'http://catalog.shop:8080/', tcp: 'catalog.shop:9000' };
    const { short } = await underLoad(
      mesh,
      { namespace: 'shop', name: 'load-1', ...to },
      async (moreCalls) => {
        expect((await mesh.tulle('restart', 'ztunnel/n1')).code).toBe(0);
        await moreCalls(100);
      },
    );
    expect(short.errors).toEqual([]);
    const hops = mesh
      .accessLog('n1')
      .filter((line) => line['src.workload'] === 'load-1')
      .map((line) => line['hop']);
    expect([hops.at(0), hops.at(-1)]).toEqual(['same-node', 'same-node']);
  });

  test('a namespace may ask for tunnels and take it back while it is used', async () => {
    const hops = async (): Promise<unknown> =>
      (await recordsOf(() => ping('shop/web-1', 'catalog.shop'), 1)).at(0)?.['hop'];
    expect(await hops()).toBe('same-node');
    mesh.write(
      'mesh.yaml',
      namespaceYaml('shop', true, 'tulle.dev/same-node: tunnel') +
        SPACES.slice(SPACES.indexOf('---\n') + 4) +
        SERVICES,
    );
    await eventually('tunnels', async () => (await hops()) === undefined);
    mesh.write('mesh.yaml', SPACES + SERVICES);
    await eventually('none any more', async () => (await hops()) === 'same-node');
  });

  test.each([
    { end: 'server', name: 'late-1' },
    { end: 'client', name: 'late-2' },
  ])('when the $end’s pod goes, so does the connection', async ({ end, name }) => {
    const late = await mesh.run(
      { namespace: 'shop', name, serviceAccount: 'late', command: serverCommand('late') },
      true,
    );
    const [caller, server, host = ''] =
      end === 'server'
        ? (['shop/web-1', `shop/${name}`, late.addresses[0]] as const)
        : ([`shop/${name}`, 'shop/catalog-1', catalog.addresses[0]] as const);
    const before = await establishedIn(server);
    const until = `${Date.now() / 1000 + 20}`;
    const talking = mesh.exec(caller, ['python3', '-c', TALK, host, until], 30_000);
    await eventually('it is open', async () => (await establishedIn(server)) > before);
    await endProcess(late.child);
    const { stdout } = await talking;
    if (end === 'server') expect(stdout).toMatch(/^(cut|closed)/);
    else await eventually('it has ended', async () => (await establishedIn(server)) <= before);
  });
});

describe('when the control plane is stopped', () => {
  test('connections end with the certificate, none is opened without one, and all is well when it is back', async () => {
    await using mesh = await openMesh({
      files: { 'mesh.yaml': SPACES + SERVICES },
      flags: ['--nodes', 'n1', '--svid-ttl', '12s'],
    });
    await mesh.run(
      {
        ...{ namespace: 'shop', name: 'catalog-1', serviceAccount: 'catalog', labels: { app: 'catalog' } },
        command: serverCommand('catalog-1'),
      },
      true,
    );
    await mesh.run({ namespace: 'shop', name: 'web-1', serviceAccount: 'web', ...IDLE }, true);
    const ping = async (): Promise<boolean> =>
      (await mesh.exec('shop/web-1', ['python3', '-c', PING, 'catalog.shop'], 15_000)).code === 0;
    await eventually('catalog answers', ping, 20_000);
    const until = `${Date.now() / 1000 + 60}`;
    const talking = mesh.exec('shop/web-1', ['python3', '-c', TALK, 'catalog.shop', until], 90_000);
    const { pid } = (await mesh.status()).controlPlane;
    process.kill(pid, 'SIGSTOP');
    try {
      expect((await talking).stdout).toMatch(/^cut ConnectionResetError/);
      const record = await eventually('its record', () =>
        mesh.accessLog('n1').findLast((line) => line['response_flags'] === 'IDENTITY_ERROR'),
      );
      expect(record).toMatchObject({
        hop: 'same-node',
        error: expect.stringContaining('is no longer valid here'),
      });
      expect(await ping()).toBe(false);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await eventually('catalog answers again', ping, 30_000);
  });
});
