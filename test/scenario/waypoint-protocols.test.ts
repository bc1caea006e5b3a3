import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { callFrom } from '#test/kit/calls.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { echoCommand } from '#test/kit/programs/programs.ts';
import { namespaceYaml } from '#test/kit/yaml.ts';

/** What runs through a waypoint besides plain requests: tunnels, streams, TLS by name, other ways in. */
let mesh: Mesh;
const PROGRAMS = join(import.meta.dirname, '../kit/programs');

beforeAll(async () => {
  mesh = await openMesh({ files: { 'mesh.yaml': MESH, 'routes.yaml': '' } });
  for (const name of ['a', 'b']) {
    const labels = { app: 'streams', one: name };
    const command = [process.execPath, join(PROGRAMS, 'streams.ts'), name];
    await mesh.run({ namespace: 'shop', name, serviceAccount: 'streams', labels, command }, true);
  }
  const echo = { namespace: 'shop', name: 'echo', labels: { app: 'echo' }, command: echoCommand('echo') };
  await mesh.run(echo, true);
  await mesh.run(
    { namespace: 'shop', name: 'web', serviceAccount: 'web', command: ['sleep', 'infinity'] },
    true,
  );
});
afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

async function talk(what: string, at: string, names = ''): Promise<unknown> {
  const command = [process.execPath, join(PROGRAMS, 'talk.ts'), what, at, names];
  const { code, stdout, stderr } = await mesh.exec('shop/web', command, 60_000);
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

const MESSAGES = Array.from({ length: 10 }, (_, turn) => `message ${turn}`);

test('a WebSocket carries messages both ways, and ends', async () => {
  await eventually('it does', async () => {
    expect(await talk('websocket', 'streams.shop:80')).toEqual({ status: 101, answers: MESSAGES });
    return true;
  });
});

test('a gRPC stream carries messages both ways, each as soon as it is sent', async () => {
  const { status, answers } = (await talk('grpc', 'streams.shop:7070')) as {
    status: number;
    answers: readonly string[];
  };
  expect(status).toBe(0);
  expect(answers.map((text) => text.slice(3))).toEqual(MESSAGES);
});

test.each(['upload', 'download'])('64 MiB arrive whole: %s', async (what) => {
  expect(await talk(what, 'streams.shop:80')).toEqual({ bytes: 64 * 1024 * 1024, isSame: true });
});

describe('TCP', () => {
  test('a server that speaks first is heard on a declared and on an undeclared port, and ends are passed on', async () => {
    for (const port of [9000, 9001]) {
      const answers = (await talk('tcp', `streams.shop:${port}`, '2')) as readonly string[];
      expect(answers.filter((text) => !/^[ab] hello$/.test(text))).toEqual([]);
    }
  });

  test('a TCPRoute splits connections by weight, to within one of exact', async () => {
    const backends =
      'backendRefs: [{name: only-a, port: 9000, weight: 3}, {name: only-b, port: 9000, weight: 1}]';
    mesh.write('routes.yaml', route('TCPRoute', 9000, backends));
    await eventually('the split is as it should be', async () => {
      const answers = (await talk('tcp', 'streams.shop:9000', '12')) as readonly string[];
      const hits = answers.filter((text) => text === 'a hello').length;
      return Math.abs(hits - 9) <= 1;
    });
  });

  test('a TLSRoute follows the name in the ClientHello, and a name that none has is refused', async () => {
    const to = (name: string): string =>
      route('TLSRoute', 9443, `backendRefs: [{name: only-${name}, port: 9443}]`, `${name}.example`, name);
    mesh.write('routes.yaml', to('a') + to('b'));
    await eventually('each name leads to its server', async () => {
      const met = await talk('tls', 'streams.shop:9443', 'a.example,b.example,c.example');
      expect(met).toEqual(['DNS:server-a', 'DNS:server-b', null]);
      return true;
    });
    mesh.write('routes.yaml', '');
  });
});

describe('other ways in', () => {
  test('IPv6 and IPv4 both lead through the waypoint', async () => {
    const { services } = await mesh.status();
    const addresses = services.find(({ name }) => name === 'echo')?.addresses ?? [];
    expect(addresses).toHaveLength(2);
    const urls = addresses.map((ip) => (ip.includes(':') ? `http://[${ip}]/` : `http://${ip}/`));
    const replies = await callFrom(
      mesh,
      'shop/web',
      urls.map((url) => ({ url })),
    );
    expect(
      replies.map(({ status, headers }) => [status, headers['x-envoy-upstream-service-time'] !== undefined]),
    ).toEqual([
      [200, true],
      [200, true],
    ]);
  });

  test('a waypoint for workloads takes what is sent to the address of a pod', async () => {
    mesh.write(
      'mesh.yaml',
      MESH.replace(
        'name: waypoint, namespace: shop}',
        'name: waypoint, namespace: shop, labels: {istio.io/waypoint-for: all}}',
      ),
    );
    const { workloads } = await mesh.status();
    const ip = workloads.find(({ name }) => name === 'echo')?.addresses[0];
    await eventually('it goes through the waypoint', async () => {
      const [reply] = await callFrom(mesh, 'shop/web', [{ url: `http://${ip}:8080/` }]);
      return reply?.status === 200 && reply.headers['x-envoy-upstream-service-time'] !== undefined;
    });
  });
});

function route(kind: string, port: number, rule: string, hostname = '', name = 'r'): string {
  const hostnames = hostname === '' ? '' : `hostnames: [${hostname}], `;
  return `apiVersion: gateway.networking.k8s.io/v1
kind: ${kind}
metadata: {name: ${name}, namespace: shop}
spec: {parentRefs: [{group: "", kind: Service, name: streams, port: ${port}}], ${hostnames}rules: [{${rule}}]}
---
`;
}

const PORTS =
  '[{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000}, {name: unsaid, port: 9001, targetPort: 9000}, {name: tls, port: 9443}, {name: grpc, port: 7070}]';
const service = (name: string, selector: string, ports: string): string => `apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: shop}
spec: {selector: {${selector}}, ports: ${ports}}
---
`;

const MESH = `${namespaceYaml('shop', true, 'istio.io/use-waypoint: waypoint')}${service('streams', 'app: streams', PORTS)}${service('only-a', 'one: a', PORTS)}${service('only-b', 'one: b', PORTS)}${service('echo', 'app: echo', '[{name: http, port: 80, targetPort: 8080}]')}apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: tulle-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
`;
