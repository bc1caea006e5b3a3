import { afterAll, beforeAll, expect, test } from 'vitest';
import { bytesFlow, errorsOf, startLongLived } from '#test/kit/long-lived.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { longLivedServerCommand, trafficServerCommand } from '#test/kit/programs/programs.ts';
import { startTraffic } from '#test/kit/traffic.ts';
import { namespaceYaml } from '#test/kit/yaml.ts';

/**
 * What restarts cut of what goes through a waypoint: TCP of all shapes with checksums, WebSockets, HTTP/1.1 that pauses between
 * requests, new connections. The callers are on n1, the servers on n2, the waypoint on one of them.
 */
let mesh: Mesh;

const service = (name: string, port: string): string => `apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: shop}
spec: {selector: {app: ${name}}, ports: [${port}]}
---
`;
const GATEWAY = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: tulle-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`;

beforeAll(async () => {
  const yaml = [
    namespaceYaml('shop', true, 'istio.io/use-waypoint: waypoint'),
    service('server', '{name: tcp, port: 9000}'),
    service('answers', '{name: http, port: 8080}'),
    GATEWAY,
  ];
  mesh = await openMesh({ files: { 'mesh.yaml': yaml.join('') }, flags: ['--nodes', 'n1,n2'] });
  const at = { namespace: 'shop', node: 'n2' };
  const server = { name: 'server', labels: { app: 'server' }, command: longLivedServerCommand(9000) };
  const answers = { name: 'answers', labels: { app: 'answers' }, command: trafficServerCommand('answers') };
  await mesh.run({ ...at, ...server }, true);
  await mesh.run({ ...at, ...answers }, true);
});
afterAll(async () => {
  await mesh?.[Symbol.asyncDispose]();
});

const WAYPOINT = 'waypoint/shop/waypoint';

test.each([
  { what: 'ten restarts of the waypoint', rounds: Array.from({ length: 10 }, () => [WAYPOINT]) },
  {
    what: 'restarts of the ztunnels at both of its sides',
    rounds: [['ztunnel/n1'], ['ztunnel/n2'], ['ztunnel/n1', 'ztunnel/n2']],
  },
  {
    what: 'restarts of the waypoint and the ztunnels at once',
    rounds: Array.from({ length: 2 }, () => [
      [WAYPOINT, 'ztunnel/n1'],
      [WAYPOINT, 'ztunnel/n2'],
      [WAYPOINT, 'ztunnel/n1', 'ztunnel/n2'],
    ]).flat(),
  },
])('$what cut no connection, and no request fails', { timeout: 600_000 }, async ({ what, rounds }) => {
  const at = { namespace: 'shop', node: 'n1' };
  const run = rounds.length;
  const client = await startLongLived(mesh, {
    ...at,
    name: `calls-${run}`,
    host: 'server.shop',
    isInMesh: true,
  });
  const target = 'answers.shop.svc.cluster.local:8080';
  const traffic = await startTraffic(mesh, { ...at, name: `traffic-${run}` }, [
    { name: 'new', kind: 'new', target, pauseMs: 20 },
    { name: 'steady', kind: 'kept', target, pauseMs: 20, count: 2 },
    { name: 'pausing', kind: 'kept', target, pauseMs: 1_000, count: 4 },
    { name: 'websocket', kind: 'websocket', target, pauseMs: 20, count: 4 },
  ]);
  const took: number[] = [];
  for (const processes of rounds) {
    const startedAt = performance.now();
    const restarts = processes.map((each) => mesh.tulle('restart', each));
    for (const { code, stderr } of await Promise.all(restarts)) expect(code, stderr).toBe(0);
    took.push(Math.round(performance.now() - startedAt));
    await bytesFlow([client]);
  }
  const lines = traffic.read();
  await traffic.end();
  const seen = await client.end();
  const stalls = lines.flatMap((line) => (line.what === 'stall' ? [line.ms] : []));
  process.stdout.write(
    `${what}: took ${took} ms; longest stall ${Math.max(0, ...stalls)} ms; ${JSON.stringify(seen)}\n`,
  );
  expect(errorsOf(seen)).toEqual([]);
  expect(lines.filter((line) => line.what === 'failed' || line.what === 'cut')).toEqual([]);
});
