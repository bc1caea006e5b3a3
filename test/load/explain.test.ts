import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { mustRun } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh, TULLE, type WorkloadStatus } from '#test/kit/mesh.ts';
import { serverCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, peerAuthenticationYaml, policyYaml, serviceYaml } from '#test/kit/yaml.ts';

/** What `tulle explain` says of connections, and what becomes of them. */
let mesh: Mesh;

const WAYPOINTS = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate, namespace: shop}
spec:
  gatewayClassName: tulle-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
`;

function boundYaml(name: string, waypoint: string): string {
  return `apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: shop, labels: {istio.io/use-waypoint: ${waypoint}}}
spec: {selector: {app: near}, ports: [{name: http, port: 8080, appProtocol: http}]}
---
`;
}

const SETTINGS = `apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "tulle: {dryRunPolicies: true}"}
---
`;

const IDENTITY = 'cluster.local/ns/shop/sa';
const POLICIES = [
  peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}'),
  policyYaml('vault', 'no-open', '{action: DENY, rules: [{from: [{source: {namespaces: [open]}}]}]}'),
  policyYaml(
    'shop',
    'guard',
    `{selector: {matchLabels: {app: guard}}, action: ALLOW, rules: [{from: [{source: {principals: ["${IDENTITY}/cart"]}}], to: [{operation: {ports: ["8080"]}}]}]}`,
  ),
  policyYaml(
    'shop',
    'no-9000',
    '{selector: {matchLabels: {app: catalog}}, action: DENY, rules: [{to: [{operation: {ports: ["9000"]}}]}]}',
  ),
  policyYaml(
    'shop',
    'tried',
    '{selector: {matchLabels: {app: near}}, action: DENY, rules: [{}]}',
    'istio.io/dry-run: "true"',
  ),
  policyYaml(
    'shop',
    'methods',
    '{selector: {matchLabels: {app: methods}}, action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}',
  ),
].join('');

const SERVICES = ['catalog', 'near', 'guard', 'methods', 'empty'].map((name) => serviceYaml('shop', name));

const SERVERS = [
  ['shop', 'catalog', 'n2'],
  ['shop', 'near', 'n1'],
  ['shop', 'guard', 'n2'],
  ['shop', 'methods', 'n1'],
  ['open', 'open', 'n2'],
  ['vault', 'vault', 'n2'],
] as const;

const CALLERS = [
  ['shop', 'web'],
  ['shop', 'cart'],
  ['shop', 'bad'],
  ['open', 'client'],
  ['out', 'stranger'],
] as const;

const addresses = new Map<string, string>();

beforeAll(async () => {
  const namespaces = ['shop', 'open', 'vault'].map((name) => namespaceYaml(name, true)).join('');
  const services = [...SERVICES, serviceYaml('open', 'open'), serviceYaml('vault', 'vault')].join('');
  const bound = boundYaml('routed', 'gate') + boundYaml('lost', 'ghost');
  const files = namespaces + namespaceYaml('out', false) + services + bound + WAYPOINTS + SETTINGS + POLICIES;
  mesh = await openMesh({ files: { 'mesh.yaml': files }, flags: ['--svid-ttl', '1h'] });
  // One after the other: each asks for the status all the time.
  const note = ({ namespace, name, addresses: own }: WorkloadStatus): unknown =>
    addresses.set(`${namespace}/${name}`, own[0] ?? '');
  for (const [namespace, app, node] of SERVERS) {
    const identity = { namespace, name: `${app}-1`, serviceAccount: app };
    note(await mesh.run({ ...identity, node, labels: { app }, command: serverCommand(app) }, true));
  }
  for (const [namespace, name] of CALLERS) {
    const identity = { namespace, name, serviceAccount: name };
    const command = ['sleep', 'infinity'];
    note(await mesh.run({ ...identity, node: 'n1', command }, namespace !== 'out'));
  }
  await mesh.until('all is ready', ({ ready }) => ready, 30_000);
});

afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

interface Explained {
  readonly basis: string;
  readonly outcome: string;
  readonly from: object;
  readonly routes: readonly {
    readonly hop: { readonly kind: string; readonly reason: string };
    readonly verdict: object | null;
    readonly obstacle: object | null;
    readonly ignored: readonly object[];
  }[];
}

/** Names of workloads in braces stand for their addresses. */
function filled(text: string): string {
  return text.replace(/\{(.+?)\}/, (_, name: string) => addresses.get(name) ?? name);
}

async function explain(from: string, to: string): Promise<Explained> {
  const { stdout, stderr } = await mesh.tulle(
    'explain',
    '--from',
    filled(from),
    '--to',
    filled(to),
    '-o',
    'json',
  );
  if (stderr !== '') throw new Error(stderr);
  return JSON.parse(stdout) as Explained;
}

/** Whether an HTTP answer comes back. */
async function isAnswered(from: string, to: string): Promise<boolean> {
  const caller = from.replace(/[{}]/g, '');
  const call = ['curl', '-sS', '-o', '/dev/null', '-m', '4', `http://${filled(to)}/`];
  return (await mesh.exec(caller, call)).code === 0;
}

/** What it says is what happens, and why. */
async function holds(from: string, to: string, expected: object): Promise<void> {
  const explained = await explain(from, to);
  expect(explained).toMatchObject(expected);
  expect([from, to, await isAnswered(from, to)]).toEqual([from, to, explained.outcome === 'allowed']);
}

const allowed = (kind: string, reason: string, more: object = {}): object => ({
  outcome: 'allowed',
  routes: [{ hop: { kind, reason }, obstacle: null, ...more }],
});
const denied = (reason: string, policy: string, position: RegExp, more: object = {}): object => ({
  outcome: 'refused',
  routes: [{ verdict: { kind: 'deny', reason, policy, position: expect.stringMatching(position) }, ...more }],
});
const refused = (reason: string): object => ({
  outcome: 'refused',
  routes: [{ hop: { kind: 'refuse', reason }, verdict: null }],
});
const obstructed = (at: string, reason: string): object => ({
  outcome: 'refused',
  routes: [{ obstacle: { at, reason } }],
});

describe('a connection is what it is explained to be', () => {
  test.each([
    [
      'to another node',
      'shop/web',
      'catalog.shop:8080',
      allowed('tunnel', 'direct', {
        end: { identity: `spiffe://${IDENTITY}/catalog`, certificate: { notAfter: expect.any(String) } },
      }),
    ],
    ['on one node', 'shop/web', 'near.shop:8080', allowed('same-node', 'both-on-this-node')],
    ['to a pod by its address', 'shop/web', '{shop/catalog-1}:8080', allowed('tunnel', 'direct')],
    [
      'to a port that is denied',
      'shop/web',
      'catalog.shop:9000',
      denied('denied-by-policy', 'AuthorizationPolicy shop/no-9000', /mesh\.yaml:\d+/),
    ],
    ['to a port that the service has not', 'shop/web', 'catalog.shop:81', refused('service-port-unknown')],
    ['to a service without endpoints', 'shop/web', 'empty.shop:8080', refused('no-healthy-endpoint')],
    [
      'by whom the policy allows',
      'shop/cart',
      'guard.shop:8080',
      allowed('tunnel', 'direct', {
        verdict: { reason: 'allowed-by-policy', policy: 'AuthorizationPolicy shop/guard' },
      }),
    ],
    [
      'by whom it does not',
      'shop/web',
      'guard.shop:8080',
      denied('no-allow-matched', 'AuthorizationPolicy shop/guard', /mesh\.yaml/),
    ],
    [
      'at a port that it does not',
      'shop/cart',
      'guard.shop:9000',
      denied('no-allow-matched', 'AuthorizationPolicy shop/guard', /mesh\.yaml/),
    ],
    [
      'denied by its namespace',
      'open/client',
      'vault.vault:8080',
      denied('denied-by-policy', 'AuthorizationPolicy vault/no-open', /mesh\.yaml/),
    ],
    ['of another namespace', 'shop/web', 'vault.vault:8080', allowed('tunnel', 'direct')],
    [
      'denied in dry run only',
      'shop/cart',
      'near.shop:8080',
      allowed('same-node', 'both-on-this-node', {
        verdict: { dryRun: [{ would: 'deny' }] },
        ignored: [{ policy: 'AuthorizationPolicy shop/tried', reason: expect.stringMatching(/^dry run/) }],
      }),
    ],
    [
      'with a policy about methods and no waypoint',
      'shop/web',
      'methods.shop:8080',
      {
        outcome: 'refused',
        routes: [
          {
            verdict: { kind: 'deny' },
            ignored: [
              { policy: 'AuthorizationPolicy shop/methods', reason: expect.stringMatching(/method/) },
            ],
          },
        ],
      },
    ],
    [
      'from outside to a strict pod',
      'out/stranger',
      'catalog.shop:8080',
      denied('denied-by-policy', 'PeerAuthentication shop/default', /mesh\.yaml/, {
        hop: { kind: 'passthrough', reason: 'source-not-in-mesh' },
      }),
    ],
    [
      'from outside to an open pod',
      'out/stranger',
      'open.open:8080',
      allowed('passthrough', 'source-not-in-mesh', { end: { identity: null } }),
    ],
    [
      'from outside, by its address',
      '{out/stranger}',
      '{open/open-1}:8080',
      allowed('passthrough', 'source-not-in-mesh'),
    ],
    [
      'to outside',
      'open/client',
      '{out/stranger}:15008',
      {
        outcome: 'allowed',
        routes: [{ hop: { kind: 'passthrough', reason: 'destination-not-in-mesh' }, verdict: null }],
      },
    ],
    [
      'to a port of the mesh',
      'shop/web',
      '{shop/catalog-1}:15006',
      obstructed('destination', 'port-of-the-mesh'),
    ],
    [
      'to a service with a waypoint',
      'shop/web',
      'routed.shop:8080',
      {
        outcome: 'allowed',
        routes: [{ hop: { reason: 'service-waypoint' } }],
        waypoints: [{ waypoint: 'shop/gate' }],
      },
    ],
    ['to one whose waypoint is not there', 'shop/web', 'lost.shop:8080', refused('waypoint-not-found')],
    [
      'to a name of nobody',
      'shop/web',
      'nobody.shop.svc.cluster.local:8080',
      { outcome: 'no such name', routes: [] },
    ],
  ] as const)('%s', async (what, from, to, expected) => {
    // Nobody listens outside the mesh: what counts is the way.
    if (what === 'to outside') expect(await explain(from, to)).toMatchObject(expected);
    else await holds(from, to, expected);
  });

  test('to an address outside the mesh', async () => {
    expect(await explain('shop/web', '203.0.113.9:80')).toMatchObject({
      outcome: 'left to the network outside the mesh',
      routes: [{ hop: { kind: 'passthrough', reason: 'unknown-destination', dials: '203.0.113.9:80' } }],
    });
    await isAnswered('shop/web', '203.0.113.9:80');
    await eventually('it went out in plain text', () =>
      mesh
        .accessLog('n1')
        .some((record) => record['dst.addr'] === '203.0.113.9:80' && record['dst.hbone_addr'] === undefined),
    );
  });
});

test('an identity that is revoked is refused, at either end', async () => {
  for (const name of ['bad', 'near']) {
    await mustRun([TULLE, 'ca', 'revoke', '--state', mesh.state, `spiffe://${IDENTITY}/${name}`]);
  }
  await eventually('it is known', async () => !(await isAnswered('shop/bad', 'catalog.shop:8080')));
  await holds('shop/bad', 'catalog.shop:8080', obstructed('caller', 'revoked'));
  await holds('shop/web', 'near.shop:8080', obstructed('destination', 'revoked'));
});

test('a policy that cannot be read denies what it selects, and is named', async () => {
  mesh.write('broken.yaml', policyYaml('vault', 'broken', '{action: FORBID, rules: [{}]}'));
  await mesh.until('it is seen', ({ problems }) =>
    problems.some(({ object }) => object.endsWith('vault/broken')),
  );
  await eventually('it is in force', async () => !(await isAnswered('shop/web', 'vault.vault:8080')));
  await holds(
    'shop/web',
    'vault.vault:8080',
    denied('denied-by-policy', 'AuthorizationPolicy vault/broken', /broken\.yaml/),
  );
  mesh.remove('broken.yaml');
  await eventually('it is gone', () => isAnswered('shop/web', 'vault.vault:8080'));
});

test('a waypoint that is not ready is not gone round', async () => {
  expect((await mesh.tulle('stop', 'waypoint/shop/gate')).code).toBe(0);
  await eventually(
    'it is known',
    async () => (await explain('shop/web', 'routed.shop:8080')).outcome === 'refused',
  );
  await holds('shop/web', 'routed.shop:8080', refused('waypoint-not-ready'));
});

test('while the control plane is stopped the ztunnel says what it has, and that is what happens', async () => {
  expect((await mesh.tulle('stop', 'control-plane')).code).toBe(0);
  const basis = 'ztunnel/n1';
  await holds('shop/web', 'catalog.shop:8080', { basis, ...allowed('tunnel', 'direct') });
  await holds('shop/web', 'guard.shop:8080', { basis, outcome: 'refused' });
  await holds('out/stranger', 'catalog.shop:8080', { basis, outcome: 'refused' });
  await holds('shop/bad', 'catalog.shop:8080', { basis, ...obstructed('caller', 'revoked') });
  const { stdout } = await mesh.tulle('explain', '--from', 'shop/web', '--to', 'catalog.shop:8080');
  expect(stdout).toMatch(/^note {2}the control plane does not answer: this is what ztunnel\/n1 has/);
  expect((await mesh.tulle('start', 'control-plane')).code).toBe(0);
});

test('without the ztunnel at either end nothing gets through that it has to carry', async () => {
  expect((await mesh.tulle('stop', 'ztunnel/n2')).code).toBe(0);
  await holds('shop/web', 'catalog.shop:8080', obstructed('destination', 'ztunnel-away'));
  await holds('out/stranger', 'catalog.shop:8080', { outcome: 'refused' });
  const { outcome } = await explain('out/stranger', 'open.open:8080');
  expect(await isAnswered('out/stranger', 'open.open:8080')).toBe(outcome === 'allowed');
  expect((await mesh.tulle('stop', 'ztunnel/n1')).code).toBe(0);
  await holds('shop/web', 'catalog.shop:8080', obstructed('caller', 'ztunnel-away'));
});
