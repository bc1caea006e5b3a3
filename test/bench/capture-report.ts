import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Direction, REDIRECTIONS, type Redirection } from './capture-alone.ts';
import type { Load, LoadRow } from './capture-load.ts';
import { WAYS, type WayPlan } from './capture-mesh.ts';
import { median, type Environment as ReportEnvironment, round } from './report.ts';

/** One measurement. */
export interface Sample {
  readonly row: string;
  readonly unit: LoadRow['unit'];
  readonly round: number;
  readonly value: number;
  readonly p99?: number;
}

/** Of redirection alone. */
export interface AloneSample extends Sample, Arm {}

interface Arm {
  readonly direction: Direction;
  readonly redirection: Redirection;
}

/** Of the whole mesh. */
export interface MeshSample extends Sample, WayPlan {
  readonly work: Load['work'];
  /** CPU time of the ztunnels that carried it. */
  readonly cpuSeconds: number;
}

/** Resident memory of a mesh's ztunnels, one a node. */
export interface Memory {
  readonly capture: 'ebpf' | 'nftables';
  readonly idleMb: readonly number[];
  readonly afterMb: readonly number[];
}

export interface Environment extends ReportEnvironment {
  /** Of connections and bulk in the whole mesh; `seconds` is of everything else. */
  readonly rateSeconds: number;
}

export interface Figures {
  readonly environment: Environment;
  readonly alone: readonly AloneSample[];
  readonly mesh: readonly MeshSample[];
  readonly memory: readonly Memory[];
}

/** Writes DIRECTORY/figures.md (medians and ratios) and samples.json (every one). */
export function writeFigures(directory: string, figures: Figures): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'samples.json'), `${JSON.stringify(figures, undefined, 1)}\n`);
  writeFileSync(join(directory, 'figures.md'), formatFigures(figures));
}

/** The tables, as Markdown. */
export function formatFigures({ environment, alone, mesh, memory }: Figures): string {
  const { date, commit, cpus, memoryGb, kernel, rounds, seconds, rateSeconds } = environment;
  const versions = Object.entries(environment.versions).map(([name, version]) => `${name} ${version}`);
  const lines = [
    `# Redirection, ${date}`,
    '',
    `Commit ${commit}; ${cpus}, ${memoryGb} GB, Linux ${kernel}; ${versions.join(', ')}.`,
    '',
    `${rounds} interleaved rounds of ${seconds} s, of ${rateSeconds} s for connections and bulk in the whole mesh; medians, in brackets the range.`,
    'Times: less is better; connections and bulk: more. A ratio is the one value divided by the other.',
    '',
    ...(alone.length === 0 ? [] : formatAlone(alone)),
    ...(mesh.length === 0 ? [] : [...formatWays(mesh), ...formatRatios(mesh), ...formatCosts(mesh, memory)]),
  ];
  return `${lines.join('\n').trimEnd()}\n`;
}

function formatAlone(samples: readonly AloneSample[]): readonly string[] {
  const of = (row: string, direction: Direction, redirection: Redirection): readonly AloneSample[] =>
    samples.filter(
      (sample) => sample.row === row && sample.direction === direction && sample.redirection === redirection,
    );
  const rows = (['outbound', 'inbound'] as const).flatMap((direction) =>
    namesOf(samples).map((row) => {
      const cells = REDIRECTIONS.map((redirection) => of(row, direction, redirection));
      const [none = [], ebpf = [], nftables = []] = cells;
      const ratios = [ratio(ebpf, none), ratio(nftables, none), ratio(ebpf, nftables)];
      return [`${direction}: ${row}`, ...cells.map(cell), ...ratios];
    }),
  );
  const header = ['', ...REDIRECTIONS, 'ebpf / none', 'nftables / none', 'ebpf / nftables'];
  return [
    '## Redirection alone',
    '',
    'The server stands in the place of the ztunnel, so every connection ends in the same program; without redirection it is dialled',
    'where it listens: outbound on loopback, inbound over the veth pair.',
    '',
    ...table(header, rows),
    '',
  ];
}

function formatWays(samples: readonly MeshSample[]): readonly string[] {
  const names = namesOf(samples);
  const rows = waysOf(samples).map((way) => [
    nameOf(way),
    ...names.map((name) => {
      const own = ofWay(samples, way, name);
      const plain = ofWay(samples, plainOf(way), name);
      return way.capture === 'none' ? cell(own) : `${cell(own)}, **${ratio(own, plain)}**`;
    }),
  ]);
  return [
    '## The whole mesh',
    '',
    'Load, ztunnels and servers share the machine. An L4 policy, strict mTLS, access log and metrics are on. In bold the ratio to the plain veth',
    'links over the same nodes.',
    '',
    ...table(['', ...names], rows),
    '',
  ];
}

/** What is compared with what, beside the plain links. */
const COMPARED: readonly (readonly [WayPlan, WayPlan])[] = [
  [
    { capture: 'ebpf', how: 'two nodes' },
    { capture: 'nftables', how: 'two nodes' },
  ],
  [
    { capture: 'ebpf', how: 'tunnel' },
    { capture: 'nftables', how: 'tunnel' },
  ],
  [
    { capture: 'ebpf', how: 'hand-over' },
    { capture: 'nftables', how: 'hand-over' },
  ],
  [
    { capture: 'ebpf', how: 'hand-over' },
    { capture: 'ebpf', how: 'tunnel' },
  ],
  [
    { capture: 'ebpf', how: 'hand-over' },
    { capture: 'ebpf', how: 'two nodes' },
  ],
  [
    { capture: 'ebpf', how: 'splice' },
    { capture: 'ebpf', how: 'hand-over' },
  ],
];

function formatRatios(samples: readonly MeshSample[]): readonly string[] {
  const names = namesOf(samples);
  const rows = COMPARED.map(([one, other]) => [
    `${nameOf(one)} / ${nameOf(other)}`,
    ...names.map((name) => ratio(ofWay(samples, one, name), ofWay(samples, other, name))),
  ]);
  return ['One way compared with another:', '', ...table(['', ...names], rows), ''];
}

function formatCosts(samples: readonly MeshSample[], memory: readonly Memory[]): readonly string[] {
  const names = namesOf(samples);
  const rows = waysOf(samples)
    .filter(({ capture }) => capture !== 'none')
    .map((way) => [nameOf(way), ...names.map((name) => cost(ofWay(samples, way, name)))]);
  const memories = memory.map(
    ({ capture, idleMb, afterMb }) =>
      `- ${capture}: ${idleMb.join(' + ')} MB before the rounds, ${afterMb.join(' + ')} MB after them`,
  );
  return [
    'CPU time of the ztunnels that carry it:',
    '',
    ...table(['', ...names], rows),
    '',
    'Resident memory of the ztunnels, one a node:',
    '',
    ...memories,
  ];
}

function table(header: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(header), `|${header.map(() => '---|').join('')}`, ...rows.map(line)];
}

function namesOf(samples: readonly Sample[]): readonly string[] {
  return [...new Set(samples.map(({ row }) => row))];
}

function waysOf(samples: readonly MeshSample[]): readonly WayPlan[] {
  return WAYS.filter((way) => samples.some((sample) => isSameWay(sample, way)));
}

function ofWay(samples: readonly MeshSample[], way: WayPlan, row: string): readonly MeshSample[] {
  return samples.filter((sample) => sample.row === row && isSameWay(sample, way));
}

function isSameWay(one: WayPlan, other: WayPlan): boolean {
  return one.capture === other.capture && one.how === other.how;
}

function plainOf({ how }: WayPlan): WayPlan {
  return { capture: 'none', how: how === 'two nodes' ? how : 'one node' };
}

function nameOf({ capture, how }: WayPlan): string {
  if (capture === 'none') return `plain, ${how}`;
  return how === 'two nodes' ? `${capture}, two nodes` : `${capture}, one node, ${how}`;
}

function cell(samples: readonly Sample[]): string {
  const [first] = samples;
  if (first === undefined) return '–';
  const values = samples.map(({ value }) => value);
  const p99 = samples.flatMap((sample) => (sample.p99 === undefined ? [] : [sample.p99]));
  const tail = p99.length === 0 ? '' : `, p99 ${round(median(p99))}`;
  const range = `${round(Math.min(...values))}–${round(Math.max(...values))}`;
  return `${round(median(values))} ${first.unit} (${range})${tail}`;
}

function ratio(one: readonly Sample[], other: readonly Sample[]): string {
  const value = median(one.map((sample) => sample.value)) / median(other.map((sample) => sample.value));
  return Number.isNaN(value) ? '–' : value.toFixed(2);
}

function cost(samples: readonly MeshSample[]): string {
  const [first] = samples;
  if (first === undefined) return '–';
  const each = median(samples.map(({ cpuSeconds, work }) => cpuSeconds / work.amount));
  switch (first.work.unit) {
    case 'GB':
      return `${each.toFixed(2)} s/GB`;
    case 'connection':
      return `${(each * 1000).toFixed(2)} s/1000`;
    case 'round trip':
      return `${round(each * 1e6)} us each`;
  }
}
