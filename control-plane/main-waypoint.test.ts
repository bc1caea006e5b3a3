import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE } from '#api/envoy/types.ts';
import { subscribeEnvoyApi } from '#api/envoy-client.ts';
import { formatIdentity } from '#certs/identity.ts';
import { eventually } from '#test/kit/eventually.ts';
import { namespaceYaml, serviceYaml } from '#test/kit/yaml.ts';
import type { ControlPlane } from './main.ts';
import { tokenOf } from './serve/testing.ts';
import { identity, openState, silent, type TestState } from './testing-state.ts';

const GATEWAY = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate, namespace: shop}
spec:
  gatewayClassName: tulle-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
`;
const MESH =
  namespaceYaml('shop', true, 'istio.io/use-waypoint: gate') + serviceYaml('shop', 'cart') + GATEWAY;
const ROUTE = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: cart}]
  rules:
  - backendRefs: [{name: cart, port: 8080, weight: 70}, {name: cart-v2, port: 8080, weight: 30}]
---
`;

test('a Gateway of ours is a waypoint that is to run, as long as it is there', async () => {
  await using state = openState();
  state.write('mesh.yaml', MESH);
  await using _controlPlane = await state.open();
  const wanted = (): unknown => JSON.parse(readFileSync(join(state.directory, 'run/waypoints.json'), 'utf8'));
  expect(wanted()).toEqual([{ namespace: 'shop', name: 'gate', serviceAccount: 'gate', replicas: 1 }]);
  state.write('mesh.yaml', namespaceYaml('shop', true));
  await eventually('it is not to run', () => JSON.stringify(wanted()) === '[]');
});

test('a waypoint gets its own certificate and no other, and a node does not get it', async () => {
  await using state = openState();
  state.write('mesh.yaml', MESH);
  state.writePod('shop', 'cart-1', { node: 'n1', serviceAccount: 'cart' });
  writeToken(state);
  await using controlPlane = await state.open();
  using waypoint = state.signer(controlPlane, 'shop/gate');
  const svid = await waypoint.requestSvid(identity('shop', 'gate'), 3600);
  expect(formatIdentity(svid.identity)).toBe('spiffe://cluster.local/ns/shop/sa/gate');
  for (const other of [identity('shop', 'cart'), identity('other', 'gate')])
    await expect(waypoint.requestSvid(other, 3600)).rejects.toMatchObject({ code: 'REFUSED' });
  using node = state.signer(controlPlane, 'n1');
  await expect(node.requestSvid(identity('shop', 'gate'), 3600)).rejects.toMatchObject({ code: 'REFUSED' });

  writeFileSync(join(state.directory, 'tokens/waypoints/shop_gate'), 'another'.padEnd(43, '-'));
  await expect(waypoint.requestSvid(identity('shop', 'gate'), 3600)).rejects.toMatchObject({
    code: 'REFUSED',
  });
});

test('the status says what a waypoint serves and took, and what routes ask for', async () => {
  await using state = openState();
  state.write('mesh.yaml', MESH + ROUTE);
  writeToken(state);
  await using controlPlane = await state.open();
  expect((await state.status()).waypoints).toMatchObject([
    { namespace: 'shop', name: 'gate', replicas: 1, connected: 0, configured: 0 },
  ]);

  await using _client = subscribe(state, controlPlane);
  const status = await eventually('it is configured', async () => {
    const now = await state.status();
    return now.waypoints[0]?.configured === 1 && now;
  });
  expect(status.waypoints).toMatchObject([
    {
      namespace: 'shop',
      name: 'gate',
      serves: ['shop/cart.shop.svc.cluster.local'],
      connected: 1,
      xds: [
        { type: 'envoy.config.cluster.v3.Cluster', rejected: [] },
        { type: 'envoy.config.endpoint.v3.ClusterLoadAssignment', rejected: [] },
        { type: 'envoy.config.listener.v3.Listener', rejected: [] },
        { type: 'envoy.config.route.v3.RouteConfiguration', rejected: [] },
      ],
    },
  ]);
  for (const { sent, acked } of status.waypoints[0]?.xds ?? [])
    expect([sent > 0, acked]).toEqual([true, sent]);
  expect(status.routes).toMatchObject([
    {
      object: 'HTTPRoute shop/canary',
      parents: [{ controllerName: 'tulle.dev/waypoint' }],
      split: [
        { rule: 0, backend: 'shop/cart:8080', weight: 70 },
        { rule: 0, backend: 'shop/cart-v2:8080', weight: 30 },
      ],
    },
  ]);
});

test('a fault ends by itself, also when the control plane was restarted in between', async () => {
  await using state = openState();
  state.write('mesh.yaml', MESH + faultYaml('3s'));
  const first = await state.open();
  const [fault] = (await state.status()).faults;
  expect(fault).toMatchObject({
    policy: 'TrafficPolicy shop/chaos',
    name: 'slow',
    targets: ['Service shop/cart'],
  });
  await first[Symbol.asyncDispose]();

  await using _second = await state.open();
  const [again] = (await state.status()).faults;
  expect(again).toEqual(fault);
  await eventually('it has ended', async () => (await state.status()).faults.length === 0);
  expect(Date.now()).toBeGreaterThanOrEqual(Date.parse(fault?.endsAt ?? ''));
});

test('a fault that has ended stays over after a restart, until it is written anew', async () => {
  await using state = openState();
  state.write('mesh.yaml', MESH + faultYaml('1s'));
  const first = await state.open();
  expect((await state.status()).faults.map(({ name }) => name)).toEqual(['slow']);
  await eventually('it has ended', async () => (await state.status()).faults.length === 0);
  await first[Symbol.asyncDispose]();

  await using _second = await state.open();
  expect((await state.status()).faults).toEqual([]);
  state.write('mesh.yaml', MESH + faultYaml('1h'));
  await eventually('the other one is in force', async () => (await state.status()).faults.length === 1);
});

test('times of faults that cannot be read keep the control plane from starting', async () => {
  await using state = openState();
  mkdirSync(join(state.directory, 'config'), { recursive: true });
  writeFileSync(join(state.directory, 'config/faults.json'), '[]');
  await expect(state.open()).rejects.toMatchObject({
    name: 'StartError',
    message: expect.stringMatching(/faults\.json cannot be read \(not an object\); restore it, or remove it/),
  });
});

function writeToken(state: TestState): void {
  const folder = join(state.directory, 'tokens/waypoints');
  mkdirSync(folder);
  writeFileSync(join(folder, 'shop_gate'), tokenOf('shop/gate'));
}

function faultYaml(expiresAfter: string): string {
  return `apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: chaos, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: cart}]
  faults: [{name: slow, delay: {fixed: 10ms}, percent: 100, where: downstream, expiresAfter: ${expiresAfter}}]
---
`;
}

/** A waypoint that takes whatever it is sent. */
function subscribe(state: TestState, { port }: ControlPlane): AsyncDisposable {
  const abort = new AbortController();
  const clusters = new Set<string>();
  const listeners = new Set<string>();
  const running = subscribeEnvoyApi({
    address: `https://127.0.0.1:${port}`,
    rootsPem: () => readFileSync(join(state.directory, 'ca/bundle.pem'), 'utf8'),
    headers: () => ({ authorization: `Bearer ${tokenOf('shop/gate')}` }),
    node: { type: 'waypoint', ip: '10.1.0.9', podName: 'gate-0', podNamespace: 'shop', nodeName: 'n1' },
    interest: () =>
      new Map([
        [ENDPOINT_TYPE, clusters],
        [ROUTE_TYPE, new Set([...listeners].filter((name) => name.includes('|http|')))],
      ]),
    onUpdate: ({ type, updated }) => {
      if (type === CLUSTER_TYPE) for (const { name } of updated) clusters.add(name);
      if (type === LISTENER_TYPE) for (const { name } of updated) listeners.add(name);
      return [];
    },
    logger: silent(),
    signal: abort.signal,
  });
  return {
    [Symbol.asyncDispose]: async () => {
      abort.abort();
      await running;
    },
  };
}
