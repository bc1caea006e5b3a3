import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { inCgroup, makeCgroup } from '#cli/local/cgroups.ts';
import { endProcess, startLogged } from '#test/kit/command.ts';
import { type Mesh, openMesh, TULLE } from '#test/kit/mesh.ts';
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
import { heapProbed } from './heap-probed.ts';
import type { KernelPlaces } from './kernel.ts';
import type { Sampled } from './sampler.ts';

/**
 * What is soaked: nodes n1 and n2, captured by eBPF, and c, an external one with packet rules, where a ztunnel of ours runs that nobody
 * restarts. Clients on n1 and c call servers on all three, and two versions of one behind a waypoint.
 */
export interface SoakBed extends AsyncDisposable {
  readonly mesh: Mesh;
  readonly sampled: Sampled;
  /** Lines of all traffic since the last call; names of loops begin with the client's. */
  readonly read: () => readonly TrafficLine[];
}

const EXTERNAL = 'c';

/** Brings it up, with its load. Needs root. `probes`: folder for the heap probes. */
export async function openSoakBed(probes: string): Promise<SoakBed> {
  await using opened = new AsyncDisposableStack();
  const probe = heapProbed(probes);
  const flags = ['--svid-ttl', '60s', '--external-node', EXTERNAL];
  const mesh = opened.use(await openMesh({ files: FILES, flags, by: probe }));
  const external = await startExternal(mesh, probe);
  opened.defer(async () => void (await endProcess(external)));
  await startTrafficServers(mesh, 'soak', SERVERS);
  const clients: { readonly name: string; readonly traffic: Traffic }[] = [];
  for (const [name, node, loops] of CLIENTS) {
    const at = { namespace: 'soak', name, serviceAccount: name, node };
    const traffic = await startTraffic(mesh, at, loops);
    clients.push({ name, traffic });
    opened.defer(traffic.end);
  }
  const sampled = await whatIsSampled(mesh, external, probes);
  const stack = opened.move();
  return {
    mesh,
    sampled,
    read: () =>
      clients.flatMap(({ name, traffic }) =>
        traffic.read().map((line) => ({ ...line, loop: `${name}: ${line.loop}` })),
      ),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/** A ztunnel as an operator of an external node starts one. */
async function startExternal(mesh: Mesh, by: readonly string[]): Promise<ChildProcess> {
  const status = await mesh.status();
  const netns = status.nodes.find(({ name }) => name === EXTERNAL)?.netns ?? '';
  const environment = readFileSync(join(mesh.state, 'run', EXTERNAL, 'ztunnel.env'), 'utf8')
    .trim()
    .split('\n');
  const cgroup = makeCgroup(join(cgroupOf(status), 'processes', `ztunnel-${EXTERNAL}`));
  const command = [
    ...['nsenter', `--net=/run/netns/${netns}`, ...by, ...environment, TULLE, 'ztunnel'],
    ...['--admin-socket', externalSocket(mesh), '--access-log', join(mesh.directory, 'external.jsonl')],
  ];
  return startLogged(inCgroup(cgroup, command), join(mesh.directory, 'external.log'));
}

function externalSocket(mesh: Mesh): string {
  return join(mesh.state, 'run', EXTERNAL, 'ztunnel.sock');
}

/** The mesh's own cgroup: every workload, the waypoint's place among them, is below it. */
function cgroupOf({ workloads }: Awaited<ReturnType<Mesh['status']>>): string {
  return dirname(dirname(workloads[0]?.cgroup ?? ''));
}

async function whatIsSampled(mesh: Mesh, external: ChildProcess, probes: string): Promise<Sampled> {
  const status = await mesh.status();
  const cgroup = cgroupOf(status);
  const run = (...path: readonly string[]): string => join(mesh.state, 'run', ...path);
  const places: KernelPlaces = {
    mesh: basename(cgroup),
    cgroup,
    ruled: status.workloads.filter(({ node }) => node === EXTERNAL).map(({ netns }) => netns),
    pids: status.workloads.flatMap(({ pid, enrolled }) => (enrolled && pid > 0 ? [pid] : [])),
  };
  return {
    processes: join(cgroup, 'processes'),
    others: () => new Map([['up', mesh.up.pid ?? external.pid ?? 0]]),
    probes,
    sockets: new Map([
      ['ztunnel-n1', run('n1', 'ztunnel.sock')],
      ['ztunnel-n2', run('n2', 'ztunnel.sock')],
      [`ztunnel-${EXTERNAL}`, externalSocket(mesh)],
      ['waypoint-soak_waypoint-0', run('waypoints', 'soak_waypoint-0.sock')],
    ]),
    kernel: () => places,
  };
}

const SERVERS: TrafficServers = [
  ['plain-1', 'plain', 'n2'],
  ['beside-1', 'beside', 'n1'],
  ['ruled-1', 'ruled', EXTERNAL],
  ['v1', 'routed', 'n2'],
  ['v2', 'routed', 'n2'],
  ['guarded-1', 'guarded', 'n2'],
];

const MIB = 2 ** 20;

const PAUSE_MS = 60;

function mixed(name: string): readonly TrafficLoop[] {
  const service = `${name}.soak`;
  return [
    trafficLoop(service, 'new', PAUSE_MS),
    trafficLoop(service, 'kept', PAUSE_MS),
    trafficLoop(service, 'websocket', PAUSE_MS),
    trafficLoop(service, 'tcp', 500),
    { ...trafficLoop(service, 'bulk', PAUSE_MS), bytes: 64 * MIB, bytesPerSecond: 2 * MIB },
  ];
}

/** Calls that a policy forbids and allows in turn: judged by that alone. */
export const GUARDED = 'guard: guarded new';
/** Answered by one version or the other, as the route says. */
export const ROUTED = 'web: routed new';

const dns: TrafficLoop = { name: 'dns', kind: 'dns', target: 'plain.soak.svc.cluster.local', pauseMs: 100 };

const CLIENTS: readonly (readonly [string, string, readonly TrafficLoop[]])[] = [
  [
    'web',
    'n1',
    [
      ...['plain', 'beside', 'ruled', 'routed'].flatMap(mixed),
      trafficLoop('routed.soak', 'grpc', PAUSE_MS),
      dns,
    ],
  ],
  ['desk', EXTERNAL, [...['plain', 'ruled'].flatMap(mixed), dns]],
  ['guard', 'n1', [trafficLoop('guarded.soak', 'new', 20)]],
];

const VERSIONS = ['v1', 'v2'].map(
  (version) => `apiVersion: v1
kind: Service
metadata: {name: routed-${version}, namespace: soak}
spec: {selector: {app: routed, version: ${version}}, ports: [{name: http, port: 8080}]}
---
`,
);

/** The route with these weights, for the file `route.yaml`. */
export function routeYaml(v1: number, v2: number): string {
  return `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: routed, namespace: soak}
spec:
  parentRefs: [{group: "", kind: Service, name: routed, port: 8080}]
  rules:
  - backendRefs: [{name: routed-v1, port: 8080, weight: ${v1}}, {name: routed-v2, port: 8080, weight: ${v2}}]
`;
}

const FILES: Readonly<Record<string, string>> = {
  'mesh.yaml': [
    namespaceYaml('soak', true),
    ...['plain', 'beside', 'ruled', 'guarded'].map((name) => trafficServiceYaml('soak', name)),
    trafficServiceYaml('soak', 'routed', BEHIND_WAYPOINT),
    ...VERSIONS,
    waypointYaml('soak'),
    peerAuthenticationYaml('soak', 'default', '{mtls: {mode: STRICT}}'),
  ].join(''),
  'route.yaml': routeYaml(50, 50),
};
