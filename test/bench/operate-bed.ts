import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { trafficServerCommand } from '#test/kit/programs/programs.ts';
import type { TrafficKind, TrafficLine, TrafficLoop } from '#test/kit/programs/traffic-lines.ts';
import { startTraffic, type Traffic } from '#test/kit/traffic.ts';
import { namespaceYaml, peerAuthenticationYaml } from '#test/kit/yaml.ts';

/**
 * The mesh under an operator's hands: `shop`, strict, of a client on n1 and three services: `catalog` on the other node, `routed`
 * there behind a waypoint, `beside` on the client's node.
 */
export interface OperateBed extends AsyncDisposable {
  readonly mesh: Mesh;
  /** Lines of the load's traffic since the last call. */
  readonly read: () => readonly TrafficLine[];
  /** Answers of both curls so far: one keeps its connection, one opens a new one for each request. */
  readonly curl: Readonly<Record<'kept' | 'new', () => readonly CurlAnswer[]>>;
  /** Traffic of another client, with an identity of its own. */
  readonly other: (name: string, loops: readonly TrafficLoop[]) => Promise<Traffic>;
}

/** One answer that curl wrote down. */
export interface CurlAnswer {
  /** 0: none. */
  readonly status: number;
  /** Connections that it had to open for it. */
  readonly connects: number;
  readonly ms: number;
}

const HTTP: readonly TrafficKind[] = ['new', 'kept', 'websocket'];

/** What the load does all the time; each loop's name is its service and kind. */
export const LOOPS: readonly TrafficLoop[] = [
  ...['catalog', 'routed', 'beside'].flatMap((service) => [
    ...HTTP.map((kind) => ({ ...loop(service, kind, 8080), count: 2 })),
    loop(service, 'tcp', 9000),
    { ...loop(service, 'bulk', 9100), bytes: 256 * 2 ** 20, bytesPerSecond: 2 * 2 ** 20 },
  ]),
  { name: 'catalog idle', kind: 'tcp', target: 'catalog.shop:9000', pauseMs: 4000, count: 2 },
  loop('routed', 'grpc', 7070),
  { name: 'dns', kind: 'dns', target: 'catalog.shop.svc.cluster.local', pauseMs: 40 },
];

function loop(service: string, kind: TrafficKind, port: number): TrafficLoop {
  return { name: `${service} ${kind}`, kind, target: `${service}.shop:${port}`, pauseMs: 25 };
}

/** Brings the mesh and the load up. Needs root. */
export async function openOperateBed(flags: readonly string[]): Promise<OperateBed> {
  await using opened = new AsyncDisposableStack();
  const mesh = opened.use(await openMesh({ files: FILES, flags }));
  for (const [name, node] of SERVERS) {
    const options = { namespace: 'shop', name, serviceAccount: name, node, labels: { app: name } };
    await mesh.run({ ...options, command: trafficServerCommand(name) }, true);
  }
  const at = (name: string) => ({ namespace: 'shop', name, serviceAccount: name, node: 'n1' });
  const traffic = await startTraffic(mesh, at('load'), LOOPS);
  opened.defer(traffic.end);
  const kept = await startCurl(mesh, 'kept', opened);
  const fresh = await startCurl(mesh, 'new', opened);
  const stack = opened.move();
  return {
    mesh,
    read: traffic.read,
    curl: { kept, new: fresh },
    other: (name, loops) => startTraffic(mesh, at(name), loops),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

const CURL_PER_SECOND = 50;

/** A stock client: curl, with a rate of its own, which writes a line for each answer. */
async function startCurl(
  mesh: Mesh,
  how: 'kept' | 'new',
  opened: AsyncDisposableStack,
): Promise<() => readonly CurlAnswer[]> {
  const file = join(mesh.directory, `run-shop-curl-${how}.log`);
  const command = [
    ...['stdbuf', '-oL', 'curl', '-s', '-m', '10', '--rate', `${CURL_PER_SECOND}/s`, '-o', '/dev/null'],
    ...(how === 'new' ? ['-H', 'connection: close'] : []),
    ...['-w', '%{http_code} %{num_connects} %{time_total}\\n', 'http://catalog.shop:8080/?[1-100000000]'],
  ];
  const { child } = await mesh.run(
    { namespace: 'shop', name: `curl-${how}`, serviceAccount: 'load', node: 'n1', command },
    true,
  );
  opened.defer(async () => void (await endProcess(child)));
  const read = (): readonly CurlAnswer[] => parseCurl(readFileSync(file, 'utf8'));
  await eventually(`curl (${how}) is answered`, () => read().some(({ status }) => status === 200));
  return read;
}

/** What curl wrote, a line each: status, connections opened, seconds. */
export function parseCurl(text: string): readonly CurlAnswer[] {
  return [...text.matchAll(/^(\d{3}) (\d+) ([\d.]+)$/gm)].map(([, status, connects, seconds]) => ({
    status: Number(status),
    connects: Number(connects),
    ms: Math.round(Number(seconds) * 1000),
  }));
}

const SERVERS = [
  ['catalog', 'n2'],
  ['routed', 'n2'],
  ['beside', 'n1'],
] as const;

const SERVICES = SERVERS.map(
  ([name]) => `apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: shop${name === 'routed' ? ', labels: {istio.io/use-waypoint: waypoint}' : ''}}
spec:
  selector: {app: ${name}}
  ports: [{name: http, port: 8080}, {name: tcp, port: 9000}, {name: tcp-bulk, port: 9100}, {name: grpc, port: 7070}]
---
`,
);

const GATEWAY = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: tulle-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
`;

const FILES: Readonly<Record<string, string>> = {
  'mesh.yaml': [
    namespaceYaml('shop', true),
    ...SERVICES,
    peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}'),
    GATEWAY,
  ].join(''),
  'late.yaml': namespaceYaml('late', false),
};
