import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TrafficLine } from '#test/kit/programs/traffic-lines.ts';
import { okOf } from '#test/kit/traffic.ts';
import type { Failure, Happened } from './failures.ts';
import { type JudgeOptions, type Measure, type Sample, TOLERANCES, type Verdict } from './judge.ts';
import { drawPlot, type Line, type Plot } from './plot.ts';

/** Everything that a soak found. */
export interface SoakResult {
  /** Of the clock, milliseconds. */
  readonly start: number;
  readonly minutes: number;
  readonly samples: readonly Sample[];
  readonly lines: readonly TrafficLine[];
  readonly happened: readonly Happened[];
  readonly failures: readonly Failure[];
  readonly judged: JudgeOptions;
  /** Undefined: the run was too short. */
  readonly verdicts: readonly Verdict[] | undefined;
}

/** Whether nothing failed that was not to, and nothing grows. */
export function isPassed({ failures, verdicts }: SoakResult): boolean {
  return failures.every(({ isExpected }) => isExpected) && (verdicts ?? []).every(({ isOk }) => isOk);
}

/** Writes the folder: samples.csv, failures.json, happened.json, slopes.json, a plot for each measure, and summary.md, which is returned. */
export function writeReport(folder: string, result: SoakResult): string {
  mkdirSync(folder, { recursive: true });
  const write = (name: string, text: string): void => writeFileSync(join(folder, name), text);
  const json = (value: unknown): string => `${JSON.stringify(value, undefined, 1)}\n`;
  write('samples.csv', csvOf(result.samples));
  write('failures.json', json(result.failures));
  write('happened.json', json(result.happened));
  write('slopes.json', json(result.verdicts ?? null));
  for (const [name, plot] of plotsOf(result)) write(`${name}.svg`, drawPlot(plot));
  const summary = summaryOf(result);
  write('summary.md', summary);
  return summary;
}

function csvOf(samples: readonly Sample[]): string {
  const rows = samples.map(
    ({ at, role, pid, measure, value }) =>
      `${at.toFixed(3)},${role},${pid},${measure},${Number(value.toFixed(3))}`,
  );
  return `${['minute,role,pid,measure,value', ...rows].join('\n')}\n`;
}

function plotsOf(result: SoakResult): readonly (readonly [string, Plot])[] {
  const { samples, happened, start } = result;
  const marks = happened.map(({ name, kind, start: at }) => ({
    x: (at - start) / 60_000,
    name,
    isKill: kind === 'killed',
  }));
  const measures = Object.keys(TOLERANCES) as Measure[];
  const ofSamples = measures.flatMap((measure): (readonly [string, Plot])[] => {
    const lines = linesOf(samples.filter((sample) => sample.measure === measure));
    const { unit } = TOLERANCES[measure];
    return lines.length === 0 ? [] : [[measure.replaceAll(' ', '-'), { title: measure, unit, lines, marks }]];
  });
  return [
    ...ofSamples,
    ['failures', { title: 'failures', unit: 'in a minute', lines: failureLines(result), marks }],
    ['stalls', { title: 'longest stall', unit: 'ms in a minute', lines: stallLines(result), marks }],
  ];
}

/** A line for each process: one that takes the place of another has a line of its own, in the same colour. */
function linesOf(samples: readonly Sample[]): readonly Line[] {
  const lines = new Map<string, { name: string; points: { x: number; y: number }[] }>();
  for (const { role, pid, at, value } of samples) {
    const line = lines.get(`${role} ${pid}`) ?? { name: role, points: [] };
    line.points.push({ x: at, y: value });
    lines.set(`${role} ${pid}`, line);
  }
  return [...lines.values()];
}

function failureLines({ failures, start, minutes }: SoakResult): readonly Line[] {
  const kinds: readonly (readonly [string, (failure: Failure) => boolean])[] = [
    ['unexpected', ({ isExpected }) => !isExpected],
    ['after a kill: failed', ({ isExpected, what }) => isExpected && what === 'failed'],
    ['after a kill: cut', ({ isExpected, what }) => isExpected && what === 'cut'],
  ];
  return kinds.map(([name, is]) => ({
    name,
    points: byMinute(
      minutes,
      (minute) => failures.filter((each) => is(each) && minuteOf(each.at, start) === minute).length,
    ),
  }));
}

function stallLines({ lines, start, minutes }: SoakResult): readonly Line[] {
  const longest = new Map<string, number>();
  const clients = new Set<string>();
  for (const line of lines) {
    if (line.what !== 'stall') continue;
    const [client = ''] = line.loop.split(':');
    if (client === 'guard') continue;
    clients.add(client);
    const key = `${client} ${minuteOf(line.at + line.ms, start)}`;
    longest.set(key, Math.max(longest.get(key) ?? 0, line.ms));
  }
  return [...clients].map((name) => ({
    name,
    points: byMinute(minutes, (minute) => longest.get(`${name} ${minute}`) ?? 0),
  }));
}

function byMinute(minutes: number, value: (minute: number) => number): readonly { x: number; y: number }[] {
  return Array.from({ length: Math.ceil(minutes) }, (_, minute) => ({ x: minute + 0.5, y: value(minute) }));
}

function minuteOf(at: number, start: number): number {
  return Math.floor((at - start) / 60_000);
}

const MOST_ROWS = 40;

function summaryOf(result: SoakResult): string {
  const { minutes, failures, happened, lines, verdicts, judged } = result;
  const unexpected = failures.filter(({ isExpected }) => !isExpected);
  const expected = failures.filter(({ isExpected }) => isExpected);
  const kinds = countBy(happened, ({ name }) => name);
  return [
    `# Soak of ${minutes.toFixed(1)} minutes: ${isPassed(result) ? 'passed' : 'FAILED'}`,
    '',
    `${answersIn(lines)} requests and messages were answered. ${unexpected.length} failures that were not to be; ${expected.length} within the gap after a kill`,
    `(${expected.filter(({ what }) => what === 'cut').length} connections cut, ${expected.filter(({ what }) => what === 'failed').length} new ones or requests failed).`,
    '',
    `What happened: ${[...kinds].map(([name, count]) => `${name} (${count})`).join(', ')}.`,
    '',
    ...(unexpected.length === 0
      ? []
      : [
          '| during | loop | what | error | times |',
          '|---|---|---|---|---|',
          ...failureRows(unexpected),
          '',
        ]),
    ...(verdicts === undefined
      ? ['Slopes are not judged: the run is too short for that.', '']
      : slopeTable(verdicts, judged)),
  ].join('\n');
}

function failureRows(failures: readonly Failure[]): readonly string[] {
  const counts = countBy(
    failures,
    ({ during, loop, what, error }) => `| ${during} | ${loop} | ${what} | ${error} |`,
  );
  return [...counts].slice(0, MOST_ROWS).map(([row, count]) => `${row} ${count} |`);
}

function slopeTable(verdicts: readonly Verdict[], judged: JudgeOptions): readonly string[] {
  const rows = verdicts
    .toSorted((a, b) => Number(a.isOk) - Number(b.isOk))
    .filter(({ isOk, slope }) => !isOk || slope.perMinute !== 0)
    .map(({ role, measure, slope, isOk }) => {
      const { unit, perMinute, inAll } = TOLERANCES[measure];
      const least = Number.isFinite(slope.atLeast) ? slope.atLeast.toFixed(3) : '–';
      return `| ${role} | ${measure}${unit === '' ? '' : `, ${unit}`} | ${slope.perMinute.toFixed(3)} | ${least} | ${slope.minutes.toFixed(0)} | ${perMinute}; ${inAll} in all | ${isOk ? 'ok' : 'GROWS'} |`;
    });
  return [
    `Slopes: Theil-Sen over the least value of each ${judged.windowMinutes * 60} s, without the first ${judged.warmUpMinutes} minutes of each process. What does not move is left out.`,
    '',
    '| process | measure | a minute | at least (95%) | minutes | tolerated | |',
    '|---|---|---|---|---|---|---|',
    ...rows,
    '',
  ];
}

function answersIn(lines: readonly TrafficLine[]): number {
  const last = new Map(
    lines.flatMap((line) => (line.what === 'progress' ? [[line.loop, okOf(line)] as const] : [])),
  );
  return [...last.values()].reduce((sum, ok) => sum + ok, 0);
}

function countBy<T>(all: readonly T[], key: (one: T) => string): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const one of all) counts.set(key(one), (counts.get(key(one)) ?? 0) + 1);
  return counts;
}
