import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import type { PathName } from './peers.ts';

/** One measurement: a row on a path in a round. */
export interface Sample {
  readonly topology: 'two nodes' | 'one node';
  readonly row: string;
  readonly unit: string;
  readonly path: PathName;
  readonly round: number;
  readonly value: number;
  readonly details: Readonly<Record<string, number>>;
  /** CPU of all proxies together for one request (µs) or one GB (s). */
  readonly cpu: { readonly value: number; readonly unit: 'us/request' | 's/GB' };
  readonly residentMb: readonly number[];
}

/** What the figures were taken on and with. */
export interface Environment {
  readonly date: string;
  readonly commit: string;
  readonly cpus: string;
  readonly memoryGb: number;
  readonly kernel: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly rounds: number;
  readonly seconds: number;
}

/** Writes DATE.json (every sample) and DATE.md (medians and ratios). Returns the table. */
export function publish(directory: string, environment: Environment, samples: readonly Sample[]): string {
  mkdirSync(directory, { recursive: true });
  const name = join(directory, environment.date);
  const table = format(environment, samples);
  writeFileSync(`${name}.json`, `${JSON.stringify({ environment, samples }, undefined, 1)}\n`);
  writeFileSync(`${name}.md`, table);
  return table;
}

/** This machine, in words. */
export function machine(): Pick<Environment, 'cpus' | 'memoryGb'> {
  const all = cpus();
  return {
    cpus: `${all.length} × ${all[0]?.model ?? 'unknown'}`,
    memoryGb: Math.round(totalmem() / 2 ** 30),
  };
}

/** Middle value; of an even count the mean of the two. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  if (sorted.length === 0) return Number.NaN;
  const upper = sorted[Math.floor(middle)] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

function format(environment: Environment, samples: readonly Sample[]): string {
  const versions = Object.entries(environment.versions).map(([name, version]) => `${name} ${version}`);
  const lines = [
    `# Benchmark of ${environment.date}`,
    '',
    `Commit ${environment.commit}; ${environment.cpus}, ${environment.memoryGb} GB, Linux ${environment.kernel}; ${versions.join(', ')}.`,
    '',
    `${environment.rounds} interleaved rounds of ${environment.seconds} s each; medians, in brackets the range. Load, proxies and server share the`,
    'machine. Tulle runs with an L4 policy, strict mTLS, access log and metrics on; nginx and Envoy with access logs. Ratio: Tulle to the',
    'Envoy pair (above 1 is better, whatever the unit).',
    '',
  ];
  for (const topology of ['two nodes', 'one node'] as const) {
    const here = samples.filter((sample) => sample.topology === topology);
    if (here.length > 0) lines.push(...formatTopology(topology, here));
  }
  return `${lines.join('\n')}\n`;
}

function formatTopology(topology: string, samples: readonly Sample[]): readonly string[] {
  const paths = [...new Set(samples.map((sample) => sample.path))];
  const rows = [...new Set(samples.map((sample) => sample.row))];
  const header = ['', ...paths, 'ratio'];
  const lines = [
    `## Client and server on ${topology}`,
    '',
    `| ${header.join(' | ')} |`,
    `|${header.map(() => '---|').join('')}`,
  ];
  for (const row of rows) {
    const cells = paths.map((path) =>
      cell(samples.filter((sample) => sample.row === row && sample.path === path)),
    );
    lines.push(
      `| ${row} | ${cells.join(' | ')} | ${ratio(samples.filter((sample) => sample.row === row))} |`,
    );
  }
  return [...lines, ...formatCosts(paths, rows, samples), ''];
}

function formatCosts(
  paths: readonly PathName[],
  rows: readonly string[],
  samples: readonly Sample[],
): readonly string[] {
  const proxied = paths.filter((path) => path !== 'direct');
  const lines = [
    '',
    'CPU of all proxies, and resident memory of each after the row:',
    '',
    `| | ${proxied.join(' | ')} |`,
    `|---|${proxied.map(() => '---|').join('')}`,
  ];
  for (const row of rows) {
    const cells = proxied.map((path) => {
      const of = samples.filter((sample) => sample.row === row && sample.path === path);
      const last = of.at(-1);
      if (last === undefined) return '–';
      return `${round(median(of.map((sample) => sample.cpu.value)))} ${last.cpu.unit}, ${last.residentMb.join(' + ')} MB`;
    });
    lines.push(`| ${row} | ${cells.join(' | ')} |`);
  }
  return lines;
}

function cell(samples: readonly Sample[]): string {
  const values = samples.map((sample) => sample.value);
  const first = samples[0];
  if (first === undefined) return '–';
  const p99 = samples.flatMap((sample) =>
    sample.details['p99us'] === undefined ? [] : [sample.details['p99us']],
  );
  const range = `${round(Math.min(...values))}–${round(Math.max(...values))}`;
  const tail = p99.length === 0 ? '' : `, p99 ${round(median(p99) / 1000)} ms`;
  return `${round(median(values))} ${first.unit} (${range})${tail}`;
}

function ratio(samples: readonly Sample[]): string {
  const of = (path: PathName): number =>
    median(samples.filter((sample) => sample.path === path).map((sample) => sample.value));
  const value = samples[0]?.unit === 'us' ? of('envoy') / of('tulle') : of('tulle') / of('envoy');
  return Number.isNaN(value) ? '–' : value.toFixed(2);
}

/** A value with as many digits as say something. */
export function round(value: number): string {
  if (value >= 1000) return Math.round(value).toLocaleString('en-US');
  return value >= 100 ? value.toFixed(0) : value.toFixed(2);
}
