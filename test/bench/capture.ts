/**
 * What it costs to be redirected: `npm run bench:capture -- [--rounds 3] [--layers alone,mesh] [--rows text] [--without splice,tunnel] [--publish]`.
 * First the redirection alone, then the whole mesh, by either capture, through one node and two; each layer is one interleaved
 * run. Needs root, wrk, iperf3, nginx, sockperf. Prints tables; with --publish also writes docs/benchmarks/DATE-capture/.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openAloneBed, REDIRECTIONS } from './capture-alone.ts';
import { bulk, FIRST_BYTE, type LoadRow, NEW_CONNECTIONS, ROUND_TRIP } from './capture-load.ts';
import { openMeshBed, WAYS, type Way } from './capture-mesh.ts';
import {
  type AloneSample,
  type Environment,
  type Figures,
  formatFigures,
  type Memory,
  type MeshSample,
  type Sample,
  writeFigures,
} from './capture-report.ts';
import { machine } from './report.ts';
import { usageOf } from './usage.ts';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    layers: { type: 'string', default: 'alone,mesh' },
    rows: { type: 'string', default: '' },
    without: { type: 'string', default: '' },
    publish: { type: 'boolean', default: false },
  },
});
const ROUNDS = Number(options.rounds);
/** Of each measurement; of the mesh's rates. What takes a median of thousands needs no longer. */
const SECONDS = 1;
const RATE_SECONDS = 2;
const ALONE_ROWS = [ROUND_TRIP, FIRST_BYTE, NEW_CONNECTIONS].filter(isAsked);
const MESH_ROWS = [...ALONE_ROWS, ...[bulk(1), bulk(8)].filter(isAsked)];

// Everything is removed first.
const interrupted = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => interrupted.abort(new Error(`ended by ${signal}`)));

const alone = options.layers.includes('alone') ? await measureAlone() : [];
const { mesh, memory } = options.layers.includes('mesh') ? await measureMesh() : { mesh: [], memory: [] };
const figures: Figures = { environment: environment(), alone, mesh, memory };
console.log(formatFigures(figures));
if (options.publish) {
  const name = `${figures.environment.date}-capture`;
  writeFigures(join(import.meta.dirname, '../../docs/benchmarks', name), figures);
}

/** Another one first in each round: nothing is always measured after the same. */
function inTurn<T>(all: readonly T[], round: number): readonly T[] {
  const first = round % all.length;
  return [...all.slice(first), ...all.slice(0, first)];
}

function isAsked({ name }: LoadRow): boolean {
  return name.includes(options.rows);
}

async function measureAlone(): Promise<readonly AloneSample[]> {
  await using bed = await openAloneBed();
  const samples: AloneSample[] = [];
  for (let round = 1; round <= ROUNDS; round++)
    for (const row of ALONE_ROWS)
      for (const direction of ['outbound', 'inbound'] as const)
        for (const redirection of inTurn(REDIRECTIONS, round)) {
          interrupted.signal.throwIfAborted();
          const program = row.server === 'sockperf' ? 'sockperf' : 'nginx';
          const load = await row.measure(bed.endpoint(redirection, direction, program), SECONDS);
          const sample = { direction, redirection, ...sampleOf(row, round, load) };
          say(sample, `${direction}, ${redirection}`);
          samples.push(sample);
        }
  return samples;
}

async function measureMesh(): Promise<{
  readonly mesh: readonly MeshSample[];
  readonly memory: readonly Memory[];
}> {
  await using bed = await openMeshBed(WAYS.filter(({ how }) => !options.without.split(',').includes(how)));
  const memoryOf = (capture: Memory['capture']): readonly number[] =>
    usageOf(bed.ztunnels[capture]).residentMb;
  const idle = { ebpf: memoryOf('ebpf'), nftables: memoryOf('nftables') };
  // What has run before is faster: code that was compiled, tunnels that are open.
  for (const row of [NEW_CONNECTIONS, bulk(1)])
    for (const way of bed.ways) await row.measure(way.endpoint(row.server), SECONDS);
  const mesh: MeshSample[] = [];
  for (let round = 1; round <= ROUNDS; round++)
    for (const row of MESH_ROWS)
      for (const way of inTurn(bed.ways, round)) {
        interrupted.signal.throwIfAborted();
        const sample = await measureWay(way, row, round);
        say(sample, `${sample.capture}, ${sample.how}`);
        mesh.push(sample);
      }
  const memory = (['ebpf', 'nftables'] as const).map((capture) => ({
    capture,
    idleMb: idle[capture],
    afterMb: memoryOf(capture),
  }));
  return { mesh, memory };
}

async function measureWay(
  { capture, how, endpoint, ztunnels }: Way,
  row: LoadRow,
  round: number,
): Promise<MeshSample> {
  const before = usageOf(ztunnels).cpuSeconds;
  const load = await row.measure(endpoint(row.server), row.unit === 'us' ? SECONDS : RATE_SECONDS);
  const cpuSeconds = usageOf(ztunnels).cpuSeconds - before;
  return { capture, how, ...sampleOf(row, round, load), work: load.work, cpuSeconds };
}

function sampleOf(
  { name, unit }: LoadRow,
  round: number,
  { value, p99 }: { readonly value: number; readonly p99?: number },
): Sample {
  return { row: name, unit, round, value, ...(p99 === undefined ? {} : { p99 }) };
}

function say({ row, unit, round, value }: Sample, what: string): void {
  console.error(`round ${round}, ${row}, ${what}: ${value.toFixed(2)} ${unit}`);
}

function environment(): Environment {
  const text = (file: string, ...args: string[]): string =>
    execFileSync(file, args, { encoding: 'utf8' }).trim();
  return {
    date: new Date().toISOString().slice(0, 10),
    commit: text('git', 'rev-parse', '--short', 'HEAD'),
    ...machine(),
    kernel: text('uname', '-r'),
    versions: { node: process.version, ...packageVersions() },
    rounds: ROUNDS,
    seconds: SECONDS,
    rateSeconds: RATE_SECONDS,
  };
}

/** Of what makes the load and takes it, as the package manager knows them; nothing where there is no dpkg. */
function packageVersions(): Readonly<Record<string, string>> {
  const packages = ['sockperf', 'curl', 'wrk', 'iperf3', 'nginx'];
  const { stdout } = spawnSync('dpkg-query', ['-W', ...packages], { encoding: 'utf8' });
  return Object.fromEntries(
    (stdout ?? '')
      .trim()
      .split('\n')
      .filter(Boolean)
      .map((line) => line.split('\t')),
  );
}
