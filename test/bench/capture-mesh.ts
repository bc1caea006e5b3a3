import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '#test/kit/eventually.ts';
import { type Bed, type BenchPod, openBed } from './bed.ts';
import { type Endpoint, ONE_CPU, type ServerProgram } from './capture-load.ts';
import { SERVER_CONF } from './peers.ts';
import { BULK_PORT, HTTP_PORT } from './rows.ts';

/**
 * Two meshes side by side, one of either capture, each of two nodes; and outside of the mesh the same pods, joined by the same
 * plain links.
 */
export interface MeshBed extends AsyncDisposable {
  readonly ways: readonly Way[];
  /** Process ids of both ztunnels of a mesh. */
  readonly ztunnels: Readonly<Record<'ebpf' | 'nftables', readonly number[]>>;
}

/** From a client to a server, with what is in between. */
export interface Way extends WayPlan {
  readonly endpoint: (program: ServerProgram) => Endpoint;
  /** Process ids of the ztunnels that carry it: none outside of the mesh. */
  readonly ztunnels: readonly number[];
}

export interface WayPlan {
  readonly capture: 'none' | 'ebpf' | 'nftables';
  /** `hand-over` and `tunnel`: how the ztunnel of a node passes on what stays there; `splice`: the first, past the ztunnel. */
  readonly how: 'one node' | 'hand-over' | 'tunnel' | 'splice' | 'two nodes';
}

export const WAYS: readonly WayPlan[] = [
  { capture: 'none', how: 'one node' },
  { capture: 'ebpf', how: 'hand-over' },
  { capture: 'nftables', how: 'hand-over' },
  { capture: 'ebpf', how: 'tunnel' },
  { capture: 'nftables', how: 'tunnel' },
  { capture: 'ebpf', how: 'splice' },
  { capture: 'none', how: 'two nodes' },
  { capture: 'ebpf', how: 'two nodes' },
  { capture: 'nftables', how: 'two nodes' },
];

const LABELS: Partial<Record<WayPlan['how'], Readonly<Record<string, string>>>> = {
  tunnel: { 'tulle.dev/same-node': 'tunnel' },
  splice: { 'tulle.dev/splice': 'true' },
};

const PORTS: Readonly<Record<ServerProgram, number>> = {
  sockperf: 11111,
  nginx: HTTP_PORT,
  iperf3: BULK_PORT,
};

/** Brings both meshes up and ways through them. Needs root. */
export async function openMeshBed(plans: readonly WayPlan[]): Promise<MeshBed> {
  await using opened = new AsyncDisposableStack();
  const open = async (capture: 'ebpf' | 'nftables'): Promise<Bed> =>
    opened.adopt(await openBed(['--capture', capture]), (bed) => bed.close());
  const beds = { ebpf: await open('ebpf'), nftables: await open('nftables') };
  const ways: Way[] = [];
  // No program is attached above what is out of the mesh that uses packet rules.
  for (const plan of plans)
    ways.push(await openWay(plan.capture === 'ebpf' ? beds.ebpf : beds.nftables, plan));
  const ztunnels = {
    ebpf: await beds.ebpf.ztunnelPids(),
    nftables: await beds.nftables.ztunnelPids(),
  };
  const stack = opened.move();
  return { ways, ztunnels, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function openWay(bed: Bed, plan: WayPlan): Promise<Way> {
  const name = `${plan.capture}-${plan.how.replace(' ', '-')}`;
  const enrolled = plan.capture !== 'none';
  const labels = LABELS[plan.how];
  const client = await bed.pod(`${name}-c`, 'n1', enrolled, labels);
  const server = await bed.pod(`${name}-s`, plan.how === 'two nodes' ? 'n2' : 'n1', enrolled, labels);
  // Sockets in TIME_WAIT would decide what a new connection costs.
  for (const pod of [client, server])
    await bed.run(pod, ['sysctl', '-qw', 'net.ipv4.tcp_max_tw_buckets=64'], 10_000);
  startServers(bed, server);
  const endpoint: Way['endpoint'] = (program) => ({
    run: (command, timeoutMs) => bed.run(client, command, timeoutMs),
    ip: server.ip,
    port: PORTS[program],
  });
  await answers(name, endpoint('nginx'));
  if (enrolled) await eventually(`${name} goes its way`, () => isTaken(bed, plan, client, server), 20_000);
  const [first = 0, second = 0] = await bed.ztunnelPids();
  const carrying = plan.how === 'two nodes' ? [first, second] : [first];
  return { ...plan, endpoint, ztunnels: enrolled ? carrying : [] };
}

function startServers(bed: Bed, pod: BenchPod): void {
  const conf = join(bed.directory, `${pod.name}.conf`);
  writeFileSync(conf, SERVER_CONF(bed.directory, pod.name));
  const start = (program: ServerProgram, command: readonly string[]): unknown =>
    bed.start(pod, `${pod.name}-${program}`, command);
  start('nginx', [...ONE_CPU, 'nginx', '-e', '/dev/null', '-c', conf]);
  start('sockperf', [...ONE_CPU, 'sockperf', 'server', '--tcp', '-i', '0.0.0.0', '-p', `${PORTS.sockperf}`]);
  start('iperf3', ['iperf3', '-s', '-p', `${PORTS.iperf3}`]);
}

async function answers(name: string, { run, ip, port }: Endpoint): Promise<void> {
  const curl = ['curl', '-sf', '-m', '2', '-o', '/dev/null', `http://${ip}:${port}/`];
  const isAnswered = (): Promise<boolean> =>
    run(curl, 10_000).then(
      () => true,
      () => false,
    );
  await eventually(`${name} answers`, isAnswered, 30_000);
}

/** That a connection goes this way and no other, by the record of the client's ztunnel. */
async function isTaken(bed: Bed, { how }: WayPlan, client: BenchPod, server: BenchPod): Promise<boolean> {
  const address = `${server.ip}:${HTTP_PORT}`;
  await bed.run(client, ['curl', '-sf', '-m', '2', '-o', '/dev/null', `http://${address}/`], 10_000);
  const record = bed
    .accessLog('n1')
    .findLast((each) => each['direction'] === 'outbound' && each['dst.workload'] === server.name);
  if (record === undefined) return false;
  const staysInside = how === 'hand-over' || how === 'splice';
  return staysInside ? record['hop'] === 'same-node' : typeof record['dst.hbone_addr'] === 'string';
}
