import type { CurlFigures, Figures } from './operate-figures.ts';

/** One action and what traffic noticed. */
export interface Operation {
  readonly name: string;
  readonly kind: 'planned' | 'killed';
  readonly seconds: number;
  readonly remark: string;
  readonly all: Figures;
  readonly loops: Readonly<Record<string, Figures>>;
  readonly curl: { readonly kept: CurlFigures; readonly new: CurlFigures };
}

export interface OperateEnvironment {
  readonly date: string;
  readonly commit: string;
  readonly cpus: string;
  readonly memoryGb: number;
  readonly capture: string;
}

/** The table, and below it each loop that noticed something. */
export function formatOperation(environment: OperateEnvironment, operations: readonly Operation[]): string {
  const { date, commit, cpus, memoryGb, capture } = environment;
  return [
    `# What traffic notices of an operator, ${date}`,
    '',
    `Commit ${commit}; ${cpus}, ${memoryGb} GB; \`--capture ${capture}\`, certificates of 24 h where nothing else is said. Client on n1; services on n2, on n2 behind a waypoint, and on n1. For each`,
    'service, all the time: new HTTP connections, kept ones, WebSockets, a TCP connection that talks, one exchange of 256 MiB after the other at 2 MiB/s with a checksum;',
    'idle TCP connections, gRPC streams through the waypoint, DNS; and two curls of 50 requests a second, which keep their connection and do not.',
    'Failed: a request or a new connection without its answer. Cut: an open connection that ended. Stall: longest time in which one loop had no success.',
    'The figures are of the whole time of an action and 4 s more.',
    '',
    '| | s | made | failed | cut | longest stall, ms | curl, kept: made, failed, reconnected, slowest | curl, new: made, failed, slowest |',
    '|---|---|---|---|---|---|---|---|',
    ...operations.map(row),
    '',
    ...operations.flatMap(details),
  ].join('\n');
}

function row({ name, seconds, all, curl }: Operation): string {
  const kept = `${curl.kept.made}, ${curl.kept.failed}, ${curl.kept.cut}, ${curl.kept.longestMs} ms`;
  const fresh = `${curl.new.made}, ${curl.new.failed}, ${curl.new.longestMs} ms`;
  return `| ${name} | ${seconds} | ${all.made} | ${all.failed} | ${all.cut} | ${all.longestStallMs} | ${kept} | ${fresh} |`;
}

function details({ name, kind, remark, loops }: Operation): readonly string[] {
  const noticed = Object.entries(loops).filter(([, { failed, cut }]) => failed + cut > 0);
  if (noticed.length === 0 && remark === '') return [];
  return [
    `**${name}**${kind === 'killed' ? ' (nobody planned it)' : ''}${remark === '' ? '' : `: ${remark}`}`,
    '',
    ...noticed.map(
      ([loop, { made, failed, cut, longestStallMs, errors }]) =>
        `- ${loop}: ${made} made, ${failed} failed, ${cut} cut, stall ${longestStallMs} ms; \`${errors.join('`, `')}\``,
    ),
    ...(noticed.length > 0 ? [''] : []),
  ];
}
