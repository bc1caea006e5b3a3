import { parseArgs } from 'node:util';
import { AddressError, type Ip, parseIp } from '#api/address.ts';

/** Flags that cannot be; the message lists every one. The process ends with `exitCode`. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly exitCode = 2;
}

/** Settings of a control plane. */
export interface ControlPlaneConfig {
  readonly stateDirectory: string;
  /** Files and folders of YAML. */
  readonly paths: readonly string[];
  readonly listen: { readonly ip: Ip; readonly port: number };
  /** Life of a workload's certificate, and the longest that can be asked for. */
  readonly svidTtlMs: number;
  /** Nodes to tell what to enrol even while they have no pod. */
  readonly nodes: readonly string[];
  readonly logLevel: LogLevel;
}

/** Least severe messages that are logged. */
export type LogLevel = (typeof LOG_LEVELS)[number];

const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const;
const DEFAULT_STATE = '.tulle';
const DEFAULT_LISTEN = '127.0.0.1:15012';
const DEFAULT_SVID_TTL = '24h';

/** Shorter, and renewal at half of the life would come before the certificate is valid on a clock that is behind. */
const SHORTEST_TTL_MS = 10_000;
/** What a stock control plane allows. */
const LONGEST_TTL_MS = 90 * 24 * 3_600_000;

const UNITS = new Map([
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
]);

/**
 * Reads `--state DIR -f PATH… --listen IP:PORT --svid-ttl 24h --nodes a,b --log-level info`.
 * @throws UsageError
 */
export function parseControlPlaneConfig(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): ControlPlaneConfig {
  const flags = readFlags(argv);
  const faults: string[] = [];
  const attempt = <T>(read: () => T, otherwise: T): T => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      faults.push(error.message);
      return otherwise;
    }
  };
  const config: ControlPlaneConfig = {
    stateDirectory: flags.state ?? DEFAULT_STATE,
    paths: flags.file ?? [],
    listen: attempt(() => parseListen(flags.listen ?? DEFAULT_LISTEN), { ip: '127.0.0.1', port: 0 }),
    svidTtlMs: attempt(() => parseTtl(flags['svid-ttl'] ?? DEFAULT_SVID_TTL), LONGEST_TTL_MS),
    nodes: (flags.nodes ?? []).flatMap((list) => list.split(',')).filter((name) => name !== ''),
    logLevel: attempt(() => parseLogLevel(flags['log-level'] ?? env['LOG_LEVEL'] ?? 'info'), 'info'),
  };
  if (faults.length > 0) throw new UsageError(faults.join('\n'));
  return config;
}

function readFlags(argv: readonly string[]): {
  state?: string;
  file?: string[];
  listen?: string;
  'svid-ttl'?: string;
  nodes?: string[];
  'log-level'?: string;
} {
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: {
        state: { type: 'string' },
        file: { type: 'string', short: 'f', multiple: true },
        listen: { type: 'string' },
        'svid-ttl': { type: 'string' },
        nodes: { type: 'string', multiple: true },
        'log-level': { type: 'string' },
      },
    });
    return values;
  } catch (cause) {
    throw new UsageError(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

function parseListen(text: string): ControlPlaneConfig['listen'] {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
  try {
    if (port !== undefined && Number(port) <= 65_535) {
      return { ip: parseIp(bracketed ?? plain ?? ''), port: Number(port) };
    }
  } catch (error) {
    if (!(error instanceof AddressError)) throw error;
  }
  throw new UsageError(`--listen ${text}: expected IP:PORT or [IPv6]:PORT`);
}

/** `24h`, `90m`, `1h30m`. */
function parseTtl(text: string): number {
  const parts = [...text.matchAll(/(\d+)([dhms])/g)];
  const isWhole = parts.length > 0 && parts.map(([part]) => part).join('') === text;
  const ms = parts.reduce((sum, [, count, unit]) => sum + Number(count) * (UNITS.get(unit ?? '') ?? 0), 0);
  if (!isWhole) throw new UsageError(`--svid-ttl ${text}: expected a duration such as 24h or 90m`);
  if (ms < SHORTEST_TTL_MS || ms > LONGEST_TTL_MS) {
    throw new UsageError(`--svid-ttl ${text}: has to be between 10s and 90d`);
  }
  return ms;
}

function parseLogLevel(text: string): LogLevel {
  const level = LOG_LEVELS.find((known) => known === text);
  if (!level) throw new UsageError(`--log-level ${text}: expected one of ${LOG_LEVELS.join(', ')}`);
  return level;
}
