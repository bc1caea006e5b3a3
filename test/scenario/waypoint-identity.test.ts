import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { callFrom } from '#test/kit/calls.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { type Reply, seenBy } from '#test/kit/programs/calls.ts';
import { echoCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml, policyYaml } from '#test/kit/yaml.ts';

/** Who called stays known past a waypoint, and nobody goes round one that is required. */
let mesh: Mesh;
let echoIp = '';

const SLEEP = ['sleep', 'infinity'];
const CALLERS = ['web', 'other'] as const;

beforeAll(async () => {
  mesh = await openMesh({ files: { 'mesh.yaml': MESH, 'policy.yaml': '' } });
  const echo = { namespace: 'shop', serviceAccount: 'echo', labels: { app: 'echo' } };
  const [{ addresses }] = await Promise.all([
    mesh.run({ ...echo, name: 'echo', command: echoCommand('echo') }, true),
    mesh.run({ namespace: 'outside', name: 'outsider', command: SLEEP }, false),
    ...CALLERS.map((name) =>
      mesh.run({ namespace: 'shop', name, serviceAccount: name, command: SLEEP }, true),
    ),
  ]);
  echoIp = addresses[0] ?? '';
});
afterAll(async () => {
  await mesh[Symbol.asyncDispose]();
});

const SERVICE = 'http://echo.shop/';
const statusOf = async (from: string, url: string): Promise<number | undefined> =>
  (await callFrom(mesh, from, [{ url }]))[0]?.status;

async function expectStatus(from: string, url: string, expected: number): Promise<void> {
  await eventually(
    `${from} gets ${expected} from ${url}`,
    async () => (await statusOf(from, url)) === expected,
  );
}

function callerSeen(reply: Reply | undefined): string | undefined {
  return /URI=([^;,"]+)/.exec(seenBy(reply).headers['x-forwarded-client-cert'] ?? '')?.[1];
}

describe('the caller past the waypoint', () => {
  test('L4 policies at the destination match the caller, and not the waypoint', async () => {
    mesh.write(
      'policy.yaml',
      policyYaml(
        'shop',
        'p',
        '{selector: {matchLabels: {app: echo}}, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}',
      ),
    );
    await expectStatus('shop/other', SERVICE, 403);
    await expectStatus('shop/web', SERVICE, 200);
    mesh.write('policy.yaml', '');
    await expectStatus('shop/other', SERVICE, 200);
  });

  test('two callers whose requests are interleaved are each seen as themselves', async () => {
    const all = await Promise.all(
      CALLERS.map((name) => callFrom(mesh, `shop/${name}`, [{ url: SERVICE, count: 200 }])),
    );
    for (const [index, replies] of all.entries())
      expect(new Set(replies.map(callerSeen))).toEqual(
        new Set([`spiffe://cluster.local/ns/shop/sa/${CALLERS[index]}`]),
      );
  });

  test('what a client says of its own identity reaches nobody', async () => {
    const headers = {
      'x-forwarded-client-cert':
        'By=spiffe://cluster.local/ns/shop/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/admin',
      'x-tulle-caller': 'spiffe://cluster.local/ns/shop/sa/admin',
      'x-envoy-original-path': '/admin',
    };
    const [reply] = await callFrom(mesh, 'shop/other', [{ url: SERVICE, headers }]);
    const seen = seenBy(reply);
    expect(callerSeen(reply)).toBe('spiffe://cluster.local/ns/shop/sa/other');
    expect(seen.headers['x-forwarded-client-cert']).not.toContain('admin');
    expect(seen.headers['x-tulle-caller']).toBeUndefined();
    expect(seen.headers['x-envoy-original-path']).toBeUndefined();
  });

  test('the ztunnel of the destination logs the caller and the waypoint', async () => {
    await callFrom(mesh, 'shop/web', [{ url: SERVICE, headers: { connection: 'close' } }]);
    const isOurs = (record: Readonly<Record<string, unknown>>): boolean =>
      record['direction'] === 'inbound' && record['src.identity'] === 'spiffe://cluster.local/ns/shop/sa/web';
    const { nodes } = await mesh.status();
    // A connection is logged when it ends: a policy that denies ends those that are kept.
    mesh.write(
      'policy.yaml',
      policyYaml('shop', 'p', '{action: DENY, rules: [{from: [{source: {namespaces: [shop]}}]}]}'),
    );
    const record = await eventually('a record of it', () =>
      nodes.flatMap(({ name }) => mesh.accessLog(name)).find(isOurs),
    );
    expect(record['waypoint.identity']).toBe('spiffe://cluster.local/ns/shop/sa/waypoint');
    mesh.write('policy.yaml', '');
    await expectStatus('shop/web', SERVICE, 200);
  });
});

describe('going round the waypoint', () => {
  const pod = (): string => `http://${echoIp}:8080/`;

  test('is possible where nothing depends on it', async () => {
    await expectStatus('shop/web', pod(), 200);
    await expectStatus('outside/outsider', pod(), 200);
  });

  test.each([
    ['a policy is aimed at the service', AT_SERVICE()],
    ['a policy is aimed at the waypoint', AT_GATEWAY()],
    ['the namespace says so', ''],
  ])('is refused when %s, and the way through it is open', async (_when, policy) => {
    if (policy === '')
      mesh.write(
        'mesh.yaml',
        MESH.replace('use-waypoint: waypoint', 'use-waypoint: waypoint, tulle.dev/require-waypoint: "true"'),
      );
    else mesh.write('policy.yaml', policy);
    await expectStatus('shop/web', pod(), 0);
    await expectStatus('outside/outsider', pod(), 0);
    await expectStatus('shop/web', SERVICE, 200);
    mesh.write('policy.yaml', '');
    mesh.write('mesh.yaml', MESH);
    await expectStatus('shop/web', pod(), 200);
  });

  test('is refused on connections that are there already', async () => {
    const load = callFrom(mesh, 'shop/web', [{ url: pod(), count: 1 }, { url: `${pod()}slow/8000` }]);
    mesh.write('policy.yaml', AT_SERVICE());
    const [, cut] = await load;
    expect(cut?.status).toBe(0);
    mesh.write('policy.yaml', '');
    await expectStatus('shop/web', pod(), 200);
  });
});

test('while the waypoint is not there, connections are refused and not sent round it', async () => {
  expect((await mesh.tulle('stop', 'waypoint/shop/waypoint')).code).toBe(0);
  await expectStatus('shop/web', SERVICE, 0);
  const { stdout } = await mesh.tulle('explain', '--from', 'shop/web', '--to', 'echo.shop:80');
  expect(stdout).toContain('waypoint');
  expect((await mesh.tulle('start', 'waypoint/shop/waypoint')).code).toBe(0);
  await expectStatus('shop/web', SERVICE, 200);
});

function AT_SERVICE(): string {
  return policyYaml(
    'shop',
    'p',
    '{targetRefs: [{group: "", kind: Service, name: echo}], rules: [{from: [{source: {namespaces: [shop]}}]}]}',
  );
}

function AT_GATEWAY(): string {
  return policyYaml(
    'shop',
    'p',
    '{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}], rules: [{from: [{source: {namespaces: [shop]}}]}]}',
  );
}

const MESH = `${namespaceYaml('shop', true, 'istio.io/use-waypoint: waypoint')}${namespaceYaml('outside', false)}apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: tulle-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: shop}
spec: {selector: {app: echo}, ports: [{name: http, port: 80, targetPort: 8080}]}
`;
