import type { Bed, BenchPod } from './bed.ts';

/** What one row measures, the unit of its main value, and whether more is better. */
export interface Row {
  readonly name: string;
  readonly unit: string;
  readonly better: 'more' | 'less';
  readonly measure: (bed: Bed, client: BenchPod, server: BenchPod, seconds: number) => Promise<Measured>;
}

/** The main value and what else the tool said. */
export interface Measured {
  readonly value: number;
  readonly details: Readonly<Record<string, number>>;
  /** What was done, for CPU per unit: requests, connections, or gigabytes. */
  readonly work: { readonly amount: number; readonly unit: 'request' | 'GB' };
}

export const HTTP_PORT = 8080;
export const BULK_PORT = 5201;

/** The rows, in the order in which they are run. */
export const ROWS: readonly Row[] = [
  bulk('bulk, 1 connection', 1),
  bulk('bulk, 8 connections', 8),
  requests('requests/s, 32 connections', 32, []),
  requests('requests/s, 256 connections', 256, []),
  latency(),
  requests('new connections/s', 16, ['-H', 'Connection: close']),
];

function bulk(name: string, connections: number): Row {
  return {
    name,
    unit: 'Gb/s',
    better: 'more',
    measure: async (bed, client, server, seconds) => {
      const command = [
        'iperf3',
        '-J',
        '-c',
        server.ip,
        '-p',
        `${BULK_PORT}`,
        '-t',
        `${seconds}`,
        '-P',
        `${connections}`,
      ];
      const report = JSON.parse(await bed.run(client, command, (seconds + 20) * 1000)) as {
        end: { sum_received: { bits_per_second: number; bytes: number } };
      };
      const { bits_per_second: rate, bytes } = report.end.sum_received;
      return { value: rate / 1e9, details: {}, work: { amount: bytes / 1e9, unit: 'GB' } };
    },
  };
}

function requests(name: string, connections: number, extra: readonly string[]): Row {
  return {
    name,
    unit: '1/s',
    better: 'more',
    measure: async (bed, client, server, seconds) => {
      const result = await wrk(bed, client, server, seconds, connections, extra);
      const { rate, p50us, p99us, total } = result;
      return { value: rate, details: { p50us, p99us }, work: { amount: total, unit: 'request' } };
    },
  };
}

function latency(): Row {
  return {
    name: 'p50, 1 connection',
    unit: 'us',
    better: 'less',
    measure: async (bed, client, server, seconds) => {
      const { p50us, p99us, total } = await wrk(bed, client, server, seconds, 1, []);
      return { value: p50us, details: { p99us }, work: { amount: total, unit: 'request' } };
    },
  };
}

interface WrkResult {
  readonly rate: number;
  readonly p50us: number;
  readonly p99us: number;
  readonly total: number;
}

async function wrk(
  bed: Bed,
  client: BenchPod,
  server: BenchPod,
  seconds: number,
  connections: number,
  extra: readonly string[],
): Promise<WrkResult> {
  const url = `http://${server.ip}:${HTTP_PORT}/`;
  const load = ['-t1', `-c${connections}`, `-d${seconds}s`, '--latency', ...extra, url];
  const text = await bed.run(client, ['wrk', ...load], (seconds + 20) * 1000);
  return parseWrk(text);
}

/** @throws Error when requests failed: a figure with failures in it is none. */
export function parseWrk(text: string): WrkResult {
  if (
    /Non-2xx|Socket errors: connect [1-9]|Socket errors:.*(read|timeout) [1-9]/.test(text) &&
    !isOnlyCloseNoise(text)
  ) {
    throw new Error(`requests failed:\n${text}`);
  }
  return {
    rate: Number(field(text, /Requests\/sec:\s+([\d.]+)/)),
    p50us: microseconds(field(text, /^\s+50%\s+(\S+)/m)),
    p99us: microseconds(field(text, /^\s+99%\s+(\S+)/m)),
    total: Number(field(text, /(\d+) requests in/)),
  };
}

/** wrk counts the server's close of a `Connection: close` answer as a read error now and then; the answer was whole. */
function isOnlyCloseNoise(text: string): boolean {
  return !text.includes('Non-2xx') && /Socket errors: connect 0, read \d+, write 0, timeout 0/.test(text);
}

function field(text: string, pattern: RegExp): string {
  const value = pattern.exec(text)?.[1];
  if (value === undefined) throw new Error(`not the output of wrk: ${pattern} is not in\n${text}`);
  return value;
}

function microseconds(text: string): number {
  const [, number = '', unit = ''] = /^([\d.]+)(us|ms|s)$/.exec(text) ?? [];
  if (unit === '') throw new Error(`not a time: ${text}`);
  const factor = unit === 'us' ? 1 : unit === 'ms' ? 1e3 : 1e6;
  return Number(number) * factor;
}
