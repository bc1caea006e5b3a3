import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import pino from 'pino';
import { expect, test } from 'vitest';
import { formatIdentity } from '#certs/identity.ts';
import { temporaryAuthority } from '#certs/testing.ts';
import { callSocket } from '#cli/unix-http.ts';
import { tokenOf } from '#control-plane/serve/testing.ts';
import { openState } from '#control-plane/testing-state.ts';
import { eventually } from '#test/kit/eventually.ts';
import { namespaceYaml, serviceYaml } from '#test/kit/yaml.ts';
import { runWaypoint } from './main.ts';
import { SETTING_FLAGS } from './setting-flags.ts';
import { parseWaypointSettings, trustDomainOf } from './settings.ts';

const GATEWAY = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate, namespace: shop}
spec:
  gatewayClassName: tulle-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
`;
const ROUTE = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: cart, port: 8080}]
  rules:
  - name: split
    backendRefs: [{name: cart, port: 8080, weight: 70}, {name: cart-v2, port: 8080, weight: 30}]
---
`;
const MESH =
  namespaceYaml('shop', true, 'istio.io/use-waypoint: gate') +
  serviceYaml('shop', 'cart') +
  serviceYaml('shop', 'cart-v2') +
  GATEWAY +
  ROUTE;

interface Status {
  readonly ready: boolean;
  readonly address: string | null;
  readonly serves: readonly string[];
  readonly xds: readonly {
    readonly type: string;
    readonly held: number;
    readonly rejected: readonly unknown[];
  }[];
}

test('the process gets its configuration and certificate from a control plane, serves, and ends when told to', async () => {
  await using state = openState();
  state.write('mesh.yaml', MESH);
  mkdirSync(join(state.directory, 'tokens/waypoints'));
  writeFileSync(join(state.directory, 'tokens/waypoints/shop_gate'), `${tokenOf('shop/gate')}\n`);
  await using controlPlane = await state.open();
  const adminSocket = join(state.directory, 'gate.sock');
  const settings = parseWaypointSettings(
    new Map([
      ['state', state.directory],
      ['namespace', 'shop'],
      ['name', 'gate'],
      ['control-plane', `https://127.0.0.1:${controlPlane.port}`],
      ['listen', '127.0.0.1:0'],
      ['admin-port', '0'],
      ['metrics-port', '0'],
      ['readiness-port', '0'],
      ['admin-socket', adminSocket],
    ]),
    {},
  );
  const stop = new AbortController();
  const running = runWaypoint(settings, stop.signal, pino({ level: 'silent' }));
  const ask = async (path: string): Promise<unknown> =>
    (await callSocket({ socketPath: adminSocket, path, timeoutMs: 2_000 })).body;
  const status = await eventually('it is ready', async () => {
    const now = (await ask('/status')) as Status;
    return now.ready && now;
  });
  expect(status.serves).toContain('shop/cart.shop.svc.cluster.local');
  expect(status.xds.every(({ rejected }) => rejected.length === 0)).toBe(true);
  expect(await ask('/splits')).toMatchObject({
    splits: [
      { object: 'HTTPRoute shop/canary', rule: 0, ruleName: 'split', weight: 70, requests: 0 },
      { object: 'HTTPRoute shop/canary', rule: 0, weight: 30, requests: 0 },
    ],
  });
  expect(await ask('/certs')).toMatchObject({
    certificates: [{ identity: 'spiffe://cluster.local/ns/shop/sa/gate', state: 'Available' }],
  });
  const [ip = '', port = ''] = (status.address ?? '').split(':');
  const caller = connect({ host: ip, port: Number(port) });
  await eventually('a connection', () => !caller.connecting);
  caller.destroy();
  stop.abort();
  await running;
  await expect(ask('/status')).rejects.toThrow();
});

test('the trust domain is that of the roots', async () => {
  await using ca = await temporaryAuthority({ trustDomain: 'mesh.example' });
  const { identity, rootsPem } = await ca.svid('spiffe://mesh.example/ns/a/sa/b');
  expect(formatIdentity(identity)).toContain(trustDomainOf(rootsPem));
});

test('docs/operations.md has every flag', () => {
  const text = readFileSync(new URL('../docs/operations.md', import.meta.url), 'utf8');
  const [, section = ''] = text.split('### tulle waypoint\n');
  const written = [...(section.split('\n### ')[0] ?? '').matchAll(/^\| `--([a-z-]+)/gm)].map(
    ([, flag]) => flag,
  );
  expect(written).toEqual(SETTING_FLAGS.map(({ flag }) => flag));
});

test('settings that cannot be are told of all at once', () => {
  const flags = new Map([
    ['namespace', 'shop'],
    ['listen', 'nowhere'],
    ['admin-port', '70000'],
    ['drain', 'soon'],
    ['log-level', 'loud'],
  ]);
  expect(() => parseWaypointSettings(flags, {})).toThrow(
    expect.objectContaining({
      exitCode: 2,
      message: expect.stringMatching(
        /--name: is not set(.|\n)*--control-plane: is not set(.|\n)*--roots-file: is not set(.|\n)*--listen: "nowhere"(.|\n)*--admin-port: "70000"(.|\n)*--drain: "soon"(.|\n)*--log-level: "loud"/,
      ) as string,
    }),
  );
});

test('a state folder says what is not set, flags win over the environment, and both over the folder', () => {
  const flags = new Map([
    ['state', '/mesh'],
    ['namespace', 'shop'],
    ['name', 'gate'],
    ['instance', '2'],
    ['secret-ttl', '1h'],
  ]);
  expect(
    parseWaypointSettings(flags, { SECRET_TTL: '2h', XDS_ADDRESS: 'https://cp:1', LOG_LEVEL: '' }),
  ).toMatchObject({
    serviceAccount: 'gate',
    controlPlane: 'https://cp:1',
    roots: { kind: 'file', path: '/mesh/ca/bundle.pem' },
    token: { path: '/mesh/tokens/waypoints/shop_gate' },
    accessLog: '/mesh/logs/waypoints/shop_gate/access.jsonl',
    adminSocket: '/mesh/run/waypoints/shop_gate-2.sock',
    listen: { ip: '::', port: 15008 },
    secretTtlMs: 3_600_000,
    drainMs: 25_000,
    logLevel: 'info',
  });
});
