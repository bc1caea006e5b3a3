import { parseWrk } from './rows.ts';

/** Programs that serve what is measured: bytes echoed, HTTP, bytes swallowed. */
export type ServerProgram = 'sockperf' | 'nginx' | 'iperf3';

/** Where load is made, and where it goes. */
export interface Endpoint {
  /** Runs a command at the client and returns what it printed. */
  readonly run: (command: readonly string[], timeoutMs: number) => Promise<string>;
  readonly ip: string;
  readonly port: number;
}

/** What one row measures. */
export interface LoadRow {
  readonly name: string;
  readonly unit: 'us' | '1/s' | 'Gb/s';
  readonly server: ServerProgram;
  readonly measure: (endpoint: Endpoint, seconds: number) => Promise<Load>;
}

/** What one run of a load generator said. */
export interface Load {
  /** The median where it is a time. */
  readonly value: number;
  readonly p99?: number;
  /** What was done, for the CPU time that it took. */
  readonly work: { readonly amount: number; readonly unit: 'connection' | 'GB' | 'round trip' };
}

/** Both ends of a measured latency share this processor: else a machine of two has two results, by luck. */
export const ONE_CPU: readonly string[] = ['taskset', '-c', '0'];

export const ROUND_TRIP: LoadRow = {
  name: 'round trip, 64 B',
  unit: 'us',
  server: 'sockperf',
  measure: async ({ run, ip, port }, seconds) => {
    const to = ['-i', ip, '-p', `${port}`, '--tcp', '-m', '64', '-t', `${seconds}`, '--full-rtt'];
    return parseSockperf(await run([...ONE_CPU, 'sockperf', 'ping-pong', ...to], (seconds + 20) * 1000));
  },
};

export const FIRST_BYTE: LoadRow = {
  name: 'first byte of a new connection',
  unit: 'us',
  server: 'nginx',
  measure: async ({ run, ip, port }, seconds) => {
    const url = `http://${ip}:${port}/?[1-${Math.round(1000 * seconds)}]`;
    const report = ['-w', '%{time_starttransfer}\\n', '-o', '/dev/null', '-sS', '--fail', '--fail-early'];
    const command = ['curl', ...report, '-H', 'Connection: close', url];
    return parseTimes(await run([...ONE_CPU, ...command], 60_000));
  },
};

export const NEW_CONNECTIONS: LoadRow = {
  name: 'new connections/s',
  unit: '1/s',
  server: 'nginx',
  measure: async ({ run, ip, port }, seconds) => {
    const load = ['-t1', '-c16', `-d${seconds}s`, '--latency', '-H', 'Connection: close'];
    const text = await run(['wrk', ...load, `http://${ip}:${port}/`], (seconds + 20) * 1000);
    const { rate, total } = parseWrk(text);
    return { value: rate, work: { amount: total, unit: 'connection' } };
  },
};

/** Bytes as fast as they go, over so many connections at once. */
export function bulk(connections: number): LoadRow {
  return {
    name: `bulk, ${connections} ${connections === 1 ? 'connection' : 'connections'}`,
    unit: 'Gb/s',
    server: 'iperf3',
    measure: async ({ run, ip, port }, seconds) => {
      const load = ['-p', `${port}`, '-t', `${seconds}`, '-P', `${connections}`];
      const report = JSON.parse(await run(['iperf3', '-J', '-c', ip, ...load], (seconds + 20) * 1000)) as {
        end: { sum_received: { bits_per_second: number; bytes: number } };
      };
      const { bits_per_second: rate, bytes } = report.end.sum_received;
      return { value: rate / 1e9, work: { amount: bytes / 1e9, unit: 'GB' } };
    },
  };
}

/** @throws Error when messages were lost, or it is not what `sockperf ping-pong` prints */
export function parseSockperf(text: string): Load {
  const number = (pattern: RegExp): number => {
    const found = pattern.exec(text)?.[1];
    if (found === undefined) throw new Error(`not the output of sockperf: ${pattern} is not in\n${text}`);
    return Number(found);
  };
  if (number(/dropped messages = (\d+)/) > 0) throw new Error(`messages were lost:\n${text}`);
  return {
    value: number(/percentile 50\.000 =\s+([\d.]+)/),
    p99: number(/percentile 99\.000 =\s+([\d.]+)/),
    work: { amount: number(/Total (\d+) observations/), unit: 'round trip' },
  };
}

/** Times in seconds, one a line. */
function parseTimes(text: string): Load {
  const times = text
    .trim()
    .split('\n')
    .map((line) => Number(line) * 1e6)
    .sort((a, b) => a - b);
  const at = (share: number): number => times[Math.floor(times.length * share)] ?? Number.NaN;
  return { value: at(0.5), p99: at(0.99), work: { amount: times.length, unit: 'connection' } };
}
