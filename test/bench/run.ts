/**
 * The benchmark: `npm run bench -- [--rounds 3] [--seconds 4] [--paths direct,nginx,envoy,tulle] [--rows text] [--topologies two,one] [--publish]`.
 * Needs root, wrk, iperf3, nginx with its stream module, and (for Envoy) PyPI. Prints a table; with --publish also writes docs/benchmarks/.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Bed, openBed } from './bed.ts';
import { makeCredentials } from './credentials.ts';
import { openPath, PATH_NAMES, type Path, type PathName } from './peers.ts';
import { type Environment, machine, publish, type Sample } from './report.ts';
import { type Measured, ROWS, type Row } from './rows.ts';
import { usageOf } from './usage.ts';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '4' },
    paths: { type: 'string', default: PATH_NAMES.join(',') },
    rows: { type: 'string', default: '' },
    topologies: { type: 'string', default: 'two,one' },
    publish: { type: 'boolean', default: false },
  },
});

const rounds = Number(options.rounds);
const seconds = Number(options.seconds);
const names = PATH_NAMES.filter((name) => options.paths.split(',').includes(name));
const rows = ROWS.filter((row) => row.name.includes(options.rows));

const bed = await openBed();
try {
  const samples: Sample[] = [];
  for (const topology of options.topologies.split(',')) {
    samples.push(...(await measureTopology(bed, topology === 'two' ? 'two nodes' : 'one node')));
  }
  const directory = options.publish ? join(import.meta.dirname, '../../docs/benchmarks') : bed.directory;
  console.log(publish(directory, environment(), samples));
} finally {
  await bed.close();
}

async function measureTopology(machineRoom: Bed, topology: Sample['topology']): Promise<readonly Sample[]> {
  const credentials = await makeCredentials(machineRoom.directory);
  const paths: Path[] = [];
  for (const name of names) {
    paths.push(
      await openPath(machineRoom, name, topology === 'two nodes' ? ['n1', 'n2'] : ['n1', 'n1'], credentials),
    );
  }
  const samples: Sample[] = [];
  for (let round = 1; round <= rounds; round++) {
    for (const row of rows) {
      for (const path of paths) samples.push(await measure(machineRoom, topology, row, path, round));
    }
  }
  return samples;
}

async function measure(
  machineRoom: Bed,
  topology: Sample['topology'],
  row: Row,
  path: Path,
  round: number,
): Promise<Sample> {
  const before = usageOf(path.proxies);
  const measured = await row.measure(machineRoom, path.client, path.server, seconds);
  const after = usageOf(path.proxies);
  const cpu = cpuPerUnit(measured, after.cpuSeconds - before.cpuSeconds);
  console.error(
    `${topology}, round ${round}, ${row.name}, ${path.name}: ${measured.value.toFixed(2)} ${row.unit}`,
  );
  return {
    topology,
    row: row.name,
    unit: row.unit,
    path: path.name,
    round,
    value: measured.value,
    details: measured.details,
    cpu,
    residentMb: after.residentMb,
  };
}

function cpuPerUnit(measured: Measured, cpuSeconds: number): Sample['cpu'] {
  const { amount, unit } = measured.work;
  return unit === 'GB'
    ? { value: cpuSeconds / amount, unit: 's/GB' }
    : { value: (cpuSeconds / amount) * 1e6, unit: 'us/request' };
}

function environment(): Environment {
  const text = (file: string, ...args: string[]): string =>
    execFileSync(file, args, { encoding: 'utf8' }).trim();
  const versions: Record<PathName | 'node', string> = {
    direct: `wrk and iperf3 ${/iperf (\S+)/.exec(text('iperf3', '--version'))?.[1] ?? ''}`,
    nginx: text('sh', '-c', 'nginx -v 2>&1').replace('nginx version: nginx/', ''),
    envoy: '1.40.0 (concurrency 1 a side)',
    tulle: '0.1 (1 byte worker a node)',
    node: process.version,
  };
  return {
    date: new Date().toISOString().slice(0, 10),
    commit: text('git', 'rev-parse', '--short', 'HEAD'),
    ...machine(),
    kernel: text('uname', '-r'),
    versions,
    rounds,
    seconds,
  };
}
