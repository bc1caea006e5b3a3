import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { endProcess } from '#test/kit/command.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import type { TrafficLine, TrafficLoop } from '#test/kit/programs/traffic-lines.ts';
import {
  startTraffic,
  startTrafficServers,
  type Traffic,
  type TrafficServers,
  trafficLoop,
  trafficServiceYaml,
} from '#test/kit/traffic.ts';
import { BEHIND_WAYPOINT, namespaceYaml, peerAuthenticationYaml, waypointYaml } from '#test/kit/yaml.ts';

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

const PAUSE_MS = 25;

/** What the load does all the time; each loop's name is its service and kind. */
export const LOOPS: readonly TrafficLoop[] = [
  ...['catalog.shop', 'routed.shop', 'beside.shop'].flatMap((service) => [
    ...(['new', 'kept', 'websocket'] as const).map((kind) => ({
      ...trafficLoop(service, kind, PAUSE_MS),
      count: 2,
    })),
    trafficLoop(service, 'tcp', PAUSE_MS),
    { ...trafficLoop(service, 'bulk', PAUSE_MS), bytes: 256 * 2 ** 20, bytesPerSecond: 2 * 2 ** 20 },
  ]),
  { name: 'catalog idle', kind: 'tcp', target: 'catalog.shop:9000', pauseMs: 4000, count: 2 },
  trafficLoop('routed.shop', 'grpc', PAUSE_MS),
  { name: 'dns', kind: 'dns', target: 'catalog.shop.svc.cluster.local', pauseMs: 40 },
];

/** Brings the mesh and the load up. Needs root. */
export async function openOperateBed(flags: readonly string[]): Promise<OperateBed> {
  await using opened = new AsyncDisposableStack();
  const mesh = opened.use(await openMesh({ files: FILES, flags }));
  await startTrafficServers(mesh, 'shop', SERVERS);
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

const SERVERS: TrafficServers = [
  ['catalog', 'catalog', 'n2'],
  ['routed', 'routed', 'n2'],
  ['beside', 'beside', 'n1'],
];

const FILES: Readonly<Record<string, string>> = {
  'mesh.yaml': [
    namespaceYaml('shop', true),
    trafficServiceYaml('shop', 'catalog'),
    trafficServiceYaml('shop', 'routed', BEHIND_WAYPOINT),
    trafficServiceYaml('shop', 'beside'),
    peerAuthenticationYaml('shop', 'default', '{mtls: {mode: STRICT}}'),
    waypointYaml('shop'),
  ].join(''),
  'late.yaml': namespaceYaml('late', false),
};
