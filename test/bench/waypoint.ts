/**
 * The L7 hop: `npm run bench:waypoint -- [--rounds 3] [--seconds 5] [--publish]`. Our ztunnels with our waypoint against our
 * ztunnels with a stock Envoy as the waypoint (HBONE in and out), in one run: a route over two weighted backends, a timeout,
 * retries, access log and metrics on. Needs root, wrk, nginx and (for Envoy) PyPI.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openAuthority } from '#certs/authority.ts';
import { createSigningRequest, readSigningRequest } from '#certs/csr.ts';
import { parseIdentity } from '#certs/identity.ts';
import { endProcess, mustRun, runCommand, startLogged } from '#test/kit/command.ts';
import { envoyBinary } from '#test/kit/envoy.ts';
import { eventually } from '#test/kit/eventually.ts';
import { type Mesh, openMesh } from '#test/kit/mesh.ts';
import { inPod } from './bed.ts';
import { envoyWaypoint } from './envoy-waypoint.ts';
import { type Credentials, SERVER_CONF } from './peers.ts';
import { machine, median } from './report.ts';
import { HTTP_PORT, parseWrk } from './rows.ts';
import { usageOf } from './usage.ts';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '5' },
    paths: { type: 'string', default: 'ours,stock' },
    publish: { type: 'boolean', default: false },
  },
});
const rounds = Number(options.rounds);
const seconds = Number(options.seconds);
const TRUST_DOMAIN = 'cluster.local';

/** Where a pod's processes are. */
type Place = Parameters<typeof inPod>[0];

/** One side of the comparison. */
interface Side {
  readonly name: 'ours' | 'stock';
  readonly client: Place;
  readonly url: string;
  readonly waypointPids: () => Promise<readonly number[]>;
}

interface Sample {
  readonly side: Side['name'];
  readonly row: string;
  readonly round: number;
  readonly rate: number;
  readonly p50us: number;
  readonly p99us: number;
  /** CPU of the waypoint, and of the ztunnels, for one request. */
  readonly waypointUs: number;
  readonly ztunnelUs: number;
  readonly waypointMb: number;
}

const ROWS: readonly { readonly name: string; readonly wrk: readonly string[] }[] = [
  { name: '32 connections', wrk: ['-t1', '-c32'] },
  { name: '1 connection', wrk: ['-t1', '-c1'] },
  { name: 'new connections', wrk: ['-t1', '-c16', '-H', 'Connection: close'] },
];

const mesh = await openMesh({ files: { 'mesh.yaml': meshYaml() }, flags: ['--nodes', 'n1,n2'] });
const children: ReturnType<typeof startLogged>[] = [];
try {
  const names = options.paths.split(',');
  const sides: Side[] = [];
  if (names.includes('ours')) sides.push(await openSide('ours'));
  if (names.includes('stock')) sides.push(await openSide('stock'));
  const samples: Sample[] = [];
  for (let round = 0; round <= rounds; round++) {
    for (const row of ROWS)
      for (const side of sides) {
        const sample = await measure(side, row, round);
        // The first round only warms up.
        if (round > 0) samples.push(sample);
      }
  }
  const text = report(samples);
  console.log(text);
  if (options.publish) {
    const folder = join(import.meta.dirname, '../../docs/benchmarks');
    mkdirSync(folder, { recursive: true });
    const name = join(folder, `${new Date().toISOString().slice(0, 10)}-waypoint`);
    writeFileSync(`${name}.md`, text);
    writeFileSync(
      `${name}.json`,
      `${JSON.stringify({ rounds, seconds, ...machine(), samples }, undefined, 1)}\n`,
    );
  }
} finally {
  for (const child of children) await endProcess(child);
  await mesh[Symbol.asyncDispose]();
}

async function openSide(name: Side['name']): Promise<Side> {
  const client = await mesh.run(
    { namespace: name, serviceAccount: 'bench', name: 'client', node: 'n1', command: ['sleep', 'infinity'] },
    true,
  );
  const backends = [];
  for (const version of ['v1', 'v2']) {
    const labels = { app: 'app', version };
    const pod = await mesh.run(
      {
        namespace: name,
        serviceAccount: 'bench',
        name: version,
        node: 'n2',
        labels,
        command: ['sleep', 'infinity'],
      },
      true,
    );
    const conf = join(mesh.directory, `${name}-${version}.conf`);
    writeFileSync(conf, SERVER_CONF(mesh.directory, `${name}-${version}`));
    start(pod, `${name}-${version}-nginx`, ['nginx', '-e', '/dev/null', '-c', conf]);
    backends.push({ name: version, address: `${pod.addresses[0]}:${HTTP_PORT}`, weight: 50 });
  }
  const stock = name === 'stock' ? await startEnvoy(backends) : undefined;
  const { services } = await mesh.status();
  const address = services.find((service) => service.namespace === name && service.name === 'app')
    ?.addresses[0];
  const url = `http://${address}/`;
  await eventually(
    `${name} answers`,
    async () =>
      (await runCommand(inPod(client, ['curl', '-sf', '-m', '2', '-o', '/dev/null', url]), 10_000)).code ===
      0,
    60_000,
  ).catch(async (cause: unknown) => {
    const logs =
      stock === undefined ? mesh.logOf(`waypoint-ours_waypoint-0`) : readFileSync(stock.log, 'utf8');
    throw new Error(`${name} never answered:\n${logs.slice(-4000)}`, { cause });
  });
  return {
    name,
    client,
    url,
    waypointPids: async () => (stock === undefined ? await ourWaypoints(mesh) : [stock.pid]),
  };
}

async function ourWaypoints(of: Mesh): Promise<readonly number[]> {
  const status = (await of.status()) as unknown as {
    readonly waypoints: readonly { readonly pid: number }[];
  };
  return status.waypoints.map(({ pid }) => pid);
}

async function startEnvoy(
  backends: readonly { readonly name: string; readonly address: string; readonly weight: number }[],
): Promise<{ readonly pid: number; readonly log: string }> {
  const pod = await mesh.run(
    {
      namespace: 'stock',
      serviceAccount: 'waypoint',
      name: 'waypoint-0',
      node: 'n1',
      labels: { 'gateway.networking.k8s.io/gateway-name': 'waypoint', 'istio.io/dataplane-mode': 'none' },
      command: ['sleep', 'infinity'],
    },
    false,
  );
  const config = envoyWaypoint({
    credentials: await credentials(),
    trustDomain: TRUST_DOMAIN,
    backends,
    accessLog: join(mesh.directory, 'envoy-access.log'),
  });
  const conf = join(mesh.directory, 'envoy.json');
  writeFileSync(conf, JSON.stringify(config));
  const command = [await envoyBinary(), '-c', conf, '--base-id', '720', '--concurrency', '1', '-l', 'warn'];
  const child = start(pod, 'envoy', command);
  return { pid: child.pid ?? 0, log: join(mesh.directory, 'envoy.log') };
}

/** An SVID of the mesh's own authority, as files. */
async function credentials(): Promise<Credentials> {
  const identity = parseIdentity(`spiffe://${TRUST_DOMAIN}/ns/stock/sa/waypoint`);
  const authority = await openAuthority({ directory: join(mesh.state, 'ca'), trustDomain: TRUST_DOMAIN });
  const { csrPem, privateKeyPem } = await createSigningRequest(identity);
  const issued = await authority.issue({ ...readSigningRequest(csrPem), identity, ttlMs: 24 * 3_600_000 });
  const at = (file: string): string => join(mesh.directory, file);
  writeFileSync(at('wp.pem'), issued.chainPem.join('\n'));
  writeFileSync(at('wp.key'), privateKeyPem);
  writeFileSync(at('roots.pem'), issued.rootsPem);
  return { ca: at('roots.pem'), certificate: at('wp.pem'), key: at('wp.key') };
}

async function measure(side: Side, row: (typeof ROWS)[number], round: number): Promise<Sample> {
  const waypoints = await side.waypointPids();
  const ztunnels = (await mesh.status()).nodes.flatMap(({ ztunnel }) =>
    ztunnel === null ? [] : [ztunnel.pid],
  );
  const before = [usageOf(waypoints), usageOf(ztunnels)];
  const command = ['wrk', ...row.wrk, `-d${seconds}s`, '--latency', side.url];
  const text = await mustRun(inPod(side.client, command), (seconds + 20) * 1000);
  const after = [usageOf(waypoints), usageOf(ztunnels)];
  const { rate, p50us, p99us, total } = parseWrk(text);
  const cost = (at: number): number =>
    (((after[at]?.cpuSeconds ?? 0) - (before[at]?.cpuSeconds ?? 0)) / total) * 1e6;
  const [waypointMb = 0] = after[0]?.residentMb ?? [];
  const sample = { rate, p50us, p99us, waypointUs: cost(0), ztunnelUs: cost(1), waypointMb };
  console.error(
    `round ${round}, ${row.name}, ${side.name}: ${rate.toFixed(0)}/s, p50 ${p50us} us, waypoint ${cost(0).toFixed(1)} us`,
  );
  return { side: side.name, row: row.name, round, ...sample };
}

function report(samples: readonly Sample[]): string {
  const { cpus, memoryGb } = machine();
  const lines = [
    `# The L7 hop, ${new Date().toISOString().slice(0, 10)}`,
    '',
    `${cpus}, ${memoryGb} GB; ${rounds} interleaved rounds of ${seconds} s, medians (range). Client → our ztunnel → waypoint → our ztunnel → nginx, all on`,
    'this machine; two weighted backends, a timeout, retries, strict mTLS, an L4 policy, access logs and metrics on. Envoy 1.40,',
    'concurrency 1, as istiod configures a waypoint; ours: one process, one thread. Ratio: above 1 is better for us.',
    '',
    '| | ours | Envoy | ratio |',
    '|---|---|---|---|',
  ];
  const measures: readonly [string, (sample: Sample) => number, 'more' | 'less'][] = [
    ['requests/s', ({ rate }) => rate, 'more'],
    ['p50, us', ({ p50us }) => p50us, 'less'],
    ['p99, us', ({ p99us }) => p99us, 'less'],
    ['CPU of the waypoint, us/request', ({ waypointUs }) => waypointUs, 'less'],
    ['CPU of both ztunnels, us/request', ({ ztunnelUs }) => ztunnelUs, 'less'],
    ['memory of the waypoint, MB', ({ waypointMb }) => waypointMb, 'less'],
  ];
  for (const row of ROWS)
    for (const [what, of, better] of measures) {
      const values = (side: Side['name']): readonly number[] =>
        samples.filter((sample) => sample.row === row.name && sample.side === side).map(of);
      const [ours, stock] = [median(values('ours')), median(values('stock'))];
      const ratio = better === 'more' ? ours / stock : stock / ours;
      lines.push(
        `| ${row.name}: ${what} | ${cell(values('ours'))} | ${cell(values('stock'))} | ${ratio.toFixed(2)} |`,
      );
    }
  return `${lines.join('\n')}\n`;
}

function cell(values: readonly number[]): string {
  if (values.length === 0) return '–';
  const round = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toFixed(1));
  return `${round(median(values))} (${round(Math.min(...values))}–${round(Math.max(...values))})`;
}

function start(place: Place, name: string, command: readonly string[]): ReturnType<typeof startLogged> {
  const child = startLogged(inPod(place, command), join(mesh.directory, `${name}.log`));
  children.push(child);
  return child;
}

function meshYaml(): string {
  return ['ours', 'stock'].map(sideYaml).join('---\n');
}

function sideYaml(namespace: string): string {
  const gateway =
    namespace === 'ours'
      ? `spec: {gatewayClassName: tulle-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}`
      : `spec: {gatewayClassName: envoy, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{type: Hostname, value: waypoint.stock.svc.cluster.local}]}
---
apiVersion: v1
kind: Service
metadata: {name: waypoint, namespace: stock, labels: {gateway.istio.io/managed: istio.io-mesh-controller}}
spec: {selector: {gateway.networking.k8s.io/gateway-name: waypoint}, ports: [{name: mesh, port: 15008, appProtocol: hbone}]}`;
  const service = (name: string, selector: string): string => `---
apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: ${namespace}}
spec: {selector: {${selector}}, ports: [{name: http, port: 80, targetPort: ${HTTP_PORT}, appProtocol: http}]}
`;
  return `apiVersion: v1
kind: Namespace
metadata: {name: ${namespace}, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: ${namespace}, labels: {istio.io/waypoint-for: service}}
${gateway}
${service('app', 'app: app')}${service('v1', 'version: v1')}${service('v2', 'version: v2')}---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: ${namespace}}
spec:
  parentRefs: [{group: "", kind: Service, name: app, port: 80}]
  rules:
  - timeouts: {request: 10s}
    retry: {codes: [503], attempts: 2}
    backendRefs: [{name: v1, port: 80, weight: 50}, {name: v2, port: 80, weight: 50}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: bench, namespace: ${namespace}}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/${namespace}/sa/bench, cluster.local/ns/${namespace}/sa/waypoint]}}]}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: ${namespace}}
spec: {mtls: {mode: STRICT}}
`;
}
