import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { resourceName } from '#api/resource.ts';
import { resourceFromJson } from '#api/resource-json.ts';
import type { Workload } from '#api/workload.ts';
import { formatIdentity } from '#certs/identity.ts';
import { eventually } from '#test/kit/eventually.ts';
import { namespaceYaml, peerAuthenticationYaml, policyYaml, serviceYaml } from '#test/kit/yaml.ts';
import { openControlPlane, runControlPlane } from './main.ts';
import type { ServedResources } from './status.ts';
import { identity, openState, silent } from './testing-state.ts';

const CART = 'Kubernetes//Pod/shop/cart-1';

test('a node is served what the files and the local pods say, and certified for what runs on it', async () => {
  await using state = openState();
  state.writePod('shop', 'cart-1', { node: 'n1', serviceAccount: 'cart' });
  await using controlPlane = await state.open();
  await using client = state.subscribe(controlPlane, 'n1');
  await eventually('everything is held', () => client.held.size >= 2);

  expect(client.held.get(CART)).toMatchObject({
    addresses: ['10.244.1.2', 'fd00:10:244:1::2'],
    node: 'n1',
    serviceAccount: 'cart',
    tunnelProtocol: 'HBONE',
    services: new Map([
      [
        'shop/cart.shop.svc.cluster.local',
        [
          { servicePort: 8080, targetPort: 8080 },
          { servicePort: 9000, targetPort: 9000 },
        ],
      ],
    ]),
  });
  expect(client.held.get('shop/cart.shop.svc.cluster.local')).toMatchObject({
    addresses: [
      { network: '', ip: '10.96.1.0' },
      { network: '', ip: 'fd00:10:96::100' },
    ],
  });

  using own = state.signer(controlPlane, 'n1');
  const svid = await own.requestSvid(identity('shop', 'cart'), 86_400);
  expect(svid.notAfterMs - svid.notBeforeMs).toBeLessThanOrEqual(3_600_000 + 600_000);
  expect(await state.status()).toMatchObject({
    certificates: [{ identity: formatIdentity(identity('shop', 'cart')), node: 'n1', serial: svid.serial }],
  });

  using other = state.signer(controlPlane, 'n2');
  await expect(other.requestSvid(identity('shop', 'cart'), 3600)).rejects.toMatchObject({ code: 'REFUSED' });
  await expect(own.requestSvid(identity('shop', 'other'), 3600)).rejects.toMatchObject({ code: 'REFUSED' });
});

test('a change of a file reaches the clients, and only what changed', async () => {
  await using state = openState();
  state.writePod('shop', 'cart-1', { node: 'n1', serviceAccount: 'cart' });
  await using controlPlane = await state.open();
  await using client = state.subscribe(controlPlane, 'n2');
  await eventually('everything is held', () => client.held.size === 2);
  client.updates.length = 0;

  state.write(
    'policy.yaml',
    policyYaml('shop', 'p', '{selector: {matchLabels: {app: cart}}, action: DENY, rules: [{}]}'),
  );
  await eventually('the policy is held', () => client.updates.length === 2);

  expect(client.updates.map(({ updated }) => updated.map(resourceName))).toEqual([['shop/p'], [CART]]);
  expect(client.held.get(CART)).toMatchObject({ authorizationPolicies: ['shop/p'] });

  client.updates.length = 0;
  state.remove('policy.yaml');
  await eventually('the policy is gone', () => client.updates.length === 2);
  expect(client.updates.map(({ updated, removed }) => [updated.map(resourceName), removed])).toEqual([
    [[CART], []],
    [[], ['shop/p']],
  ]);
});

test('the status says what is in force, who has it, and what is wrong', async () => {
  await using state = openState();
  state.writePod('shop', 'cart-1', { node: 'n1', serviceAccount: 'cart' });
  const deny = policyYaml('shop', 'p', '{action: DENY, rules: [{from: [{source: {namespaces: [bad]}}]}]}');
  state.write('policy.yaml', deny);
  state.write('broken.yaml', 'kind: Service\nmetadata: {name: [\n');
  await using controlPlane = await state.open();
  await using _client = state.subscribe(controlPlane, 'n1');

  const status = await eventually('the policy is acknowledged', async () => {
    const now = await state.status();
    return now.policies[0]?.acknowledged === '1/1' && now;
  });
  expect(status).toMatchObject({
    ready: true,
    trustDomain: 'cluster.local',
    rootNamespace: 'istio-system',
    svidTtlSeconds: 3600,
    clients: [
      {
        node: 'n1',
        connected: true,
        xds: [
          { type: 'istio.security.Authorization', sent: 1, acked: 1, rejected: [] },
          { type: 'istio.workload.Address', sent: 2, acked: 2, rejected: [] },
        ],
      },
      { node: 'n2', connected: false, xds: [] },
    ],
    workloads: [
      {
        namespace: 'shop',
        name: 'cart-1',
        node: 'n1',
        addresses: ['10.244.1.2', 'fd00:10:244:1::2'],
        identity: 'spiffe://cluster.local/ns/shop/sa/cart',
        enrolled: true,
        healthy: true,
        labels: { app: 'cart' },
        certificate: null,
        services: ['shop/cart.shop.svc.cluster.local'],
        waypoint: null,
      },
    ],
    services: [{ namespace: 'shop', name: 'cart', hostname: 'cart.shop.svc.cluster.local' }],
    policies: [
      {
        object: 'AuthorizationPolicy shop/p',
        enforcedBy: ['ztunnel/n1'],
        acknowledged: '1/1',
        ineffective: [],
      },
    ],
  });
  expect(status.problems.map(({ position }) => position)).toEqual([
    expect.stringMatching(/broken\.yaml:\d+:\d+$/),
  ]);

  const { resources } = await state.get<ServedResources>('/resources');
  const cart = resources.find(({ name }) => name === CART);
  expect(cart?.origin.object).toBe('Pod shop/cart-1');
  expect((resourceFromJson(cart?.resource ?? {}) as Workload).services.size).toBe(1);
  expect(statSync(join(state.directory, 'run/control-plane.sock')).mode & 0o777).toBe(0o600);
});

test('node agents are told what to enrol, nodes without pods that there is nothing', async () => {
  await using state = openState();
  state.writePod('shop', 'cart-1', { node: 'n1', serviceAccount: 'cart' });
  await using _controlPlane = await state.open();
  const read = (node: string): { version: string; pods: unknown[] } =>
    JSON.parse(readFileSync(join(state.directory, 'run', node, 'enrolment.json'), 'utf8'));
  const before = read('n1');
  expect(before.pods).toEqual([
    {
      uid: 'uid-of-cart-1',
      name: 'cart-1',
      namespace: 'shop',
      serviceAccount: 'cart',
      udp: 'allow',
      mode: 'permissive',
      enrol: true,
    },
  ]);
  expect(read('n2').pods).toEqual([]);

  state.write('mesh.yaml', namespaceYaml('shop', false));
  await eventually('the pod is to be released', () => read('n1').version !== before.version);
  expect(read('n1').pods).toMatchObject([{ name: 'cart-1', enrol: false }]);
  expect(await state.get('/enrolment')).toEqual({ nodes: { n1: read('n1'), n2: read('n2') } });
});

test('after a restart nothing is sent again, and addresses stay', async () => {
  await using state = openState();
  state.writePod('shop', 'cart-1', { node: 'n1', serviceAccount: 'cart' });
  state.write('strict.yaml', peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}'));
  const first = await state.open();
  await using client = state.subscribe(first, 'n1');
  await eventually('everything is held', () => client.held.size >= 3);
  const held = new Map(client.held);
  await first[Symbol.asyncDispose]();
  await eventually('the loss is noticed', () => client.states.at(-1)?.kind === 'disconnected');
  client.updates.length = 0;

  await using _second = await state.open(first.port);
  await eventually('both types are answered', () => client.updates.length === 2);
  const { clients } = await eventually('both answers are acknowledged', async () => {
    const status = await state.status();
    return status.clients[0]?.xds.length === 2 && status;
  });

  expect(client.updates.flatMap(({ updated, removed }) => [...updated, ...removed])).toEqual([]);
  expect(client.held).toEqual(held);
  expect(clients[0]?.xds.map(({ sent, acked }) => [sent, acked])).toEqual([
    [0, 0],
    [0, 0],
  ]);
});

test('a trust domain that changes is refused, running and at the next start, and all else goes on', async () => {
  await using state = openState();
  const controlPlane = await state.open();
  await using client = state.subscribe(controlPlane, 'n1');
  await eventually('the service is held', () => client.held.size === 1);
  const settings = 'trustDomain: other.example\\nrootNamespace: mesh';
  const metadata = '{name: istio, namespace: istio-system}';
  state.write(
    'settings.yaml',
    `apiVersion: v1\nkind: ConfigMap\nmetadata: ${metadata}\ndata: {mesh: "${settings}"}\n`,
  );
  const isRefused = async (): Promise<void> => {
    const status = await eventually('the problem is reported', async () => {
      const now = await state.status();
      return now.problems.length > 0 && now;
    });
    expect(status).toMatchObject({ trustDomain: 'cluster.local', rootNamespace: 'mesh' });
    expect(status.problems).toMatchObject([
      {
        position: expect.stringMatching(/settings\.yaml:4:/),
        message: expect.stringContaining('the trust domain is to become other.example'),
        effect: 'it stays cluster.local; all else that is written is in force',
      },
    ]);
  };
  await isRefused();
  state.write('more.yaml', serviceYaml('shop', 'more'));
  await eventually('the next change is in force', () => client.held.size === 2);
  await controlPlane[Symbol.asyncDispose]();

  await using _ = await state.open();
  await isRefused();
  state.remove('settings.yaml');
  await eventually('the problem is gone', async () => (await state.status()).problems.length === 0);
});

test.each([
  {
    when: 'the state folder is not there',
    path: '',
    message: /^state folder .* is not there; `tulle up --state/,
  },
  { when: 'the state folder is a file', path: 'file', message: /is not a folder; name the state folder/ },
])('when $when, one message says so', async ({ path, message }) => {
  await using state = openState();
  writeFileSync(join(state.directory, 'file'), '');
  const stateDirectory = join(state.directory, path === '' ? 'nothing' : path);
  await expect(openControlPlane({ ...state.config, stateDirectory }, silent())).rejects.toThrow(message);
});

test('a port in use is one message with the port and a remedy', async () => {
  await using state = openState();
  const holder = createServer().listen(0, '127.0.0.1');
  await once(holder, 'listening');
  const address = holder.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  await expect(state.open(port)).rejects.toMatchObject({
    name: 'StartError',
    exitCode: 1,
    message: expect.stringContaining(`cannot listen on 127.0.0.1:${port}: the port is in use`),
  });
  holder.close();
});

test('a second control plane on the same state folder is refused', async () => {
  await using state = openState();
  await using _first = await state.open();
  await expect(state.open()).rejects.toThrow(/another control plane runs on this state folder/);
  expect((await state.status()).ready).toBe(true);
});

test('addresses that cannot be read are not given anew', async () => {
  await using state = openState();
  mkdirSync(join(state.directory, 'config'), { recursive: true });
  writeFileSync(join(state.directory, 'config/vips.json'), '{');
  await expect(state.open()).rejects.toThrow(/vips\.json cannot be read/);
});

test('the process ends when its signal aborts, and takes its socket with it', async () => {
  await using state = openState();
  const abort = new AbortController();
  const running = runControlPlane(state.config, abort.signal, silent());
  await eventually('it answers', () => state.status());
  abort.abort();
  await running;
  expect(existsSync(join(state.directory, 'run/control-plane.sock'))).toBe(false);
});
