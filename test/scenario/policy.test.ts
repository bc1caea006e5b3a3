import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, type RunOptions } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, peerAuthenticationYaml, policyYaml, serviceYaml } from '#test/kit/yaml.ts';

/** Who calls `shop/catalog-1`: every kind of source that a policy can tell apart. */
const SOURCES = ['shop/web-1', 'shop/other-1', 'pay/pay-1', 'outside/outsider'] as const;
type Source = (typeof SOURCES)[number];
const ALL: readonly Source[] = SOURCES;
const MESHED: readonly Source[] = ['shop/web-1', 'shop/other-1', 'pay/pay-1'];
const NONE: readonly Source[] = [];

interface Row {
  readonly policy: string;
  readonly yaml: string;
  /** Who gets through to port 8080, and to port 9000 where that differs. */
  readonly http: readonly Source[];
  readonly tcp?: readonly Source[];
}

const SELECT = 'selector: {matchLabels: {app: catalog}}';
const STRICT = peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}');

const ROWS: readonly Row[] = [
  { policy: 'there is none', yaml: '', http: ALL },
  {
    policy: 'one principal is allowed',
    yaml: policyYaml(
      'shop',
      'p',
      `{${SELECT}, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}`,
    ),
    http: ['shop/web-1'],
  },
  {
    policy: 'one namespace is allowed',
    yaml: policyYaml('shop', 'p', '{rules: [{from: [{source: {namespaces: [shop]}}]}]}'),
    http: ['shop/web-1', 'shop/other-1'],
  },
  {
    policy: 'a service account of another namespace is allowed',
    yaml: policyYaml('shop', 'p', '{rules: [{from: [{source: {serviceAccounts: [pay/pay]}}]}]}'),
    http: ['pay/pay-1'],
  },
  {
    policy: 'one port is allowed to everyone',
    yaml: policyYaml('shop', 'p', '{rules: [{to: [{operation: {ports: ["9000"]}}]}]}'),
    http: NONE,
    tcp: ALL,
  },
  {
    policy: 'one namespace is denied',
    yaml: policyYaml('shop', 'p', '{action: DENY, rules: [{from: [{source: {namespaces: [pay]}}]}]}'),
    http: ['shop/web-1', 'shop/other-1', 'outside/outsider'],
  },
  {
    policy: 'a deny stands beside an allow for all',
    yaml:
      policyYaml('shop', 'a', '{rules: [{}]}') +
      policyYaml('shop', 'd', '{action: DENY, rules: [{from: [{source: {principals: ["*/sa/other"]}}]}]}'),
    http: ['shop/web-1', 'pay/pay-1', 'outside/outsider'],
  },
  { policy: 'nothing is allowed', yaml: policyYaml('shop', 'p', '{}'), http: NONE },
  {
    policy: 'the mesh denies a namespace from its root namespace',
    yaml: policyYaml('istio-system', 'p', '{action: DENY, rules: [{from: [{source: {namespaces: [pay]}}]}]}'),
    http: ['shop/web-1', 'shop/other-1', 'outside/outsider'],
  },
  { policy: 'mTLS is strict', yaml: STRICT, http: MESHED },
  {
    policy: 'mTLS is strict but for one port',
    yaml: peerAuthenticationYaml(
      'shop',
      'p',
      `{${SELECT}, mtls: {mode: STRICT}, portLevelMtls: {9000: {mode: PERMISSIVE}}}`,
    ),
    http: MESHED,
    tcp: ALL,
  },
  {
    policy: 'mTLS is permissive but for one port',
    yaml: peerAuthenticationYaml(
      'shop',
      'p',
      `{${SELECT}, mtls: {mode: PERMISSIVE}, portLevelMtls: {8080: {mode: STRICT}}}`,
    ),
    http: MESHED,
    tcp: ALL,
  },
  {
    policy: 'a denial is a dry run',
    yaml: policyYaml('shop', 'p', '{action: DENY, rules: [{}]}', 'istio.io/dry-run: "true"'),
    http: ALL,
  },
  {
    policy: 'an L7 field stands in an L4 deny',
    yaml: policyYaml(
      'shop',
      'p',
      `{${SELECT}, action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]}`,
    ),
    http: NONE,
  },
  {
    policy: 'the policy is broken and has no good version',
    yaml: policyYaml('shop', 'p', `{${SELECT}, action: PERMIT, rules: [{}]}`),
    http: NONE,
  },
];

describe('who may call shop/catalog', () => {
  let mesh: Mesh;

  beforeAll(async () => {
    const spaces = namespaceYaml('shop', true) + namespaceYaml('pay', true) + namespaceYaml('outside', false);
    mesh = await openMesh({
      files: { 'mesh.yaml': spaces + namespaceYaml('istio-system', false) + serviceYaml('shop', 'catalog') },
    });
    const sleep = { command: ['sleep', 'infinity'] };
    const labels = { app: 'catalog' };
    const run = (
      namespace: string,
      name: string,
      node: string,
      more: Partial<RunOptions> = {},
    ): Promise<unknown> => {
      const serviceAccount = name.replace(/-1$/, '');
      return mesh.run({ namespace, name, serviceAccount, node, ...sleep, ...more }, namespace !== 'outside');
    };
    await Promise.all([
      run('shop', 'catalog-1', 'n2', { labels, command: serverCommand('c') }),
      run('shop', 'web-1', 'n1'),
      run('shop', 'other-1', 'n2'),
      run('pay', 'pay-1', 'n1'),
      run('outside', 'outsider', 'n1'),
    ]);
  });

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  const CONNECT = `import socket,sys
s=socket.create_connection(('catalog.shop',int(sys.argv[1])),3); s.settimeout(3)
s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n' if sys.argv[1]=='8080' else b'ping')
sys.exit(0 if s.recv(10) else 1)`;

  async function allowed(port: number): Promise<readonly Source[]> {
    const codes = await Promise.all(
      SOURCES.map(
        async (source) => (await mesh.exec(source, ['python3', '-c', CONNECT, `${port}`], 15_000)).code,
      ),
    );
    return SOURCES.filter((_, index) => codes[index] === 0);
  }

  /** Connections that the application of a workload has accepted on port 9000. */
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

  async function expectAllowed(port: number, wanted: readonly Source[]): Promise<void> {
    await eventually(
      `allowed on ${port}: ${wanted.join(', ')}`,
      async () => {
        const now = await allowed(port);
        if (now.join() !== wanted.join()) throw new Error(`allowed are: ${now.join(', ')}`);
        return true;
      },
      20_000,
    );
  }

  /** Puts policies in place of all others, and waits until the control plane knows exactly these. */
  async function apply(yaml: string): Promise<void> {
    const names = [...yaml.matchAll(/kind: (\w+)\nmetadata: \{name: ([\w-]+), namespace: ([\w-]+)/g)].map(
      ([, kind, name, namespace]) => `${kind} ${namespace}/${name}`,
    );
    mesh.write('policies.yaml', yaml);
    await mesh.until(
      `the policies are: ${names.join(', ')}`,
      ({ policies }) =>
        policies
          .map(({ object }) => object)
          .toSorted()
          .join() === names.toSorted().join(),
    );
  }

  test.each(ROWS)('when $policy', async ({ yaml, http, tcp }) => {
    await apply(yaml);
    await expectAllowed(8080, http);
    if (tcp !== undefined) await expectAllowed(9000, tcp);
  });

  test('connections that a new policy denies are cut, the others live on', async () => {
    await apply('');
    const live = `import socket,time,sys
s=socket.create_connection(('catalog.shop',9000)); s.settimeout(5); n=0
print('open',flush=True)
try:
    while time.time() < float(sys.argv[1]):
        s.sendall(b'ping')
        if not s.recv(100): print('closed'); sys.exit(0)
        time.sleep(0.02)
    print('alive')
except OSError as e: print('cut', type(e).__name__)`;
    const until = `${Date.now() / 1000 + 8}`;
    const running = SOURCES.map((source) => mesh.exec(source, ['python3', '-c', live, until], 30_000));
    await eventually('four connections are open', async () => (await establishedIn('shop/catalog-1')) >= 4);
    await apply(
      policyYaml('shop', 'p', '{rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}'),
    );
    const ends = (await Promise.all(running)).map(({ stdout }) => stdout.trim().split('\n').at(-1));
    expect(ends).toEqual([
      'alive',
      'cut ConnectionResetError',
      'cut ConnectionResetError',
      'cut ConnectionResetError',
    ]);
  });

  test('a policy that the log says denied names itself', async () => {
    await apply(
      policyYaml('shop', 'named', '{action: DENY, rules: [{from: [{source: {namespaces: [pay]}}]}]}'),
    );
    await expectAllowed(8080, ['shop/web-1', 'shop/other-1', 'outside/outsider']);
    const record = await eventually('a record of the denial', () =>
      mesh.accessLog('n2').findLast((line) => line['policy'] === 'shop/named'),
    );
    expect(record).toMatchObject({
      direction: 'inbound',
      'src.identity': 'spiffe://cluster.local/ns/pay/sa/pay',
    });
  });
});
