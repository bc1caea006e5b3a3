import { existsSync } from 'node:fs';
import { AddressError, type HostPort, parseCidr, parseIp } from '#api/address.ts';

/** Variables, and what is wrong with them: readers note faults instead of throwing, so that all are told at once. */
export interface Settings {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly faults: string[];
}

/** Where PEM text comes from. A file is read again at every use. */
export type PemSource =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'text'; readonly pem: string }
  | { readonly kind: 'system' };

/** Where the bearer token comes from. A file is read again at every request. */
export type TokenSource =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'literal'; readonly token: string };

/** The variable's text; unset and empty are the same. */
export function text({ env }: Settings, name: string): string | undefined {
  const value = env[name];
  return value === '' ? undefined : value;
}

/** `true` or `false`, in any case. */
export function flag(settings: Settings, name: string, otherwise: boolean): boolean {
  const value = text(settings, name)?.toLowerCase();
  if (value === undefined) return otherwise;
  if (value === 'true' || value === 'false') return value === 'true';
  settings.faults.push(`${name}: ${JSON.stringify(value)} is neither true nor false`);
  return otherwise;
}

/** A whole number of at least `least`. */
export function wholeNumber(settings: Settings, name: string, otherwise: number, least = 0): number {
  const value = text(settings, name);
  if (value === undefined) return otherwise;
  const number = Number(value);
  if (Number.isSafeInteger(number) && number >= least) return number;
  settings.faults.push(`${name}: ${JSON.stringify(value)} is not a whole number of at least ${least}`);
  return otherwise;
}

/** A duration (`24h`, `1h30m`, `250ms`) in milliseconds, more than 0. */
export function durationMs(settings: Settings, name: string, otherwiseMs: number): number {
  const value = text(settings, name);
  if (value === undefined) return otherwiseMs;
  const parsed = parseDuration(value);
  if (parsed !== undefined) return parsed;
  settings.faults.push(`${name}: ${JSON.stringify(value)} is not a duration such as 24h or 90s`);
  return otherwiseMs;
}

const UNIT_MS: ReadonlyMap<string, number> = new Map([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
]);

function parseDuration(value: string): number | undefined {
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(value)) return undefined;
  const parts = [...value.matchAll(/(\d+(?:\.\d+)?)(ms|[smhd])/g)];
  const total = parts.reduce(
    (sum, [, number, unit = '']) => sum + Number(number) * (UNIT_MS.get(unit) ?? 0),
    0,
  );
  return total > 0 ? total : undefined;
}

/** An `https://host:port` address; a host and port alone are taken as https. */
export function httpsAddress(settings: Settings, name: string, value: string): string {
  const address = value.includes('://') ? value : `https://${value}`;
  const url = URL.parse(address);
  if (url?.protocol !== 'https:' || url.hostname === '') {
    settings.faults.push(`${name}: ${JSON.stringify(value)} is not an https:// address`);
  }
  return address;
}

/** A path, PEM text itself, or `SYSTEM`. */
export function pemSource(value: string): PemSource {
  if (value === 'SYSTEM') return { kind: 'system' };
  return value.includes('-----BEGIN') ? { kind: 'text', pem: value } : { kind: 'file', path: value };
}

/** A path if it is one of a file or looks like one, else the token itself. */
export function tokenSource(value: string): TokenSource {
  const isPath = existsSync(value) || value.startsWith('/') || value.startsWith('./');
  return isPath ? { kind: 'file', path: value } : { kind: 'literal', token: value };
}

/** Comma-separated items without blanks around them; none for an empty text. */
export function list(value: string | undefined): readonly string[] {
  return (value ?? '')
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

/** Least memory that a budget can be of. */
const LEAST_MEMORY = 32 * 1024 * 1024;
/** Most: its use is counted in 32 bits, of 128 KiB each. */
const MOST_MEMORY = 1024 * 1024 * 1024 * 1024;

/** `512Mi`, `2Gi`. */
export function memorySize(
  settings: Settings,
  name: string,
  value: string | undefined,
  usual: number,
): number {
  if (value === undefined) return usual;
  const [, digits, unit] = /^(\d{1,6})(Mi|Gi)$/.exec(value) ?? [];
  const bytes = Number(digits) * (unit === 'Gi' ? 1024 : 1) * 1024 * 1024;
  if (bytes >= LEAST_MEMORY && bytes <= MOST_MEMORY) return bytes;
  settings.faults.push(`${name}: ${JSON.stringify(value)} is not a size from 32Mi, such as 512Mi or 2Gi`);
  return usual;
}

/** Prefixes, as they were written. */
export function cidrs(settings: Settings, name: string, values: readonly string[]): readonly string[] {
  for (const value of values) noteAddressFault(settings, name, () => parseCidr(value));
  return values;
}

/** Addresses of name servers: `10.0.0.53`, `10.0.0.53:5353`, `[fd00::53]:53`. */
export function nameServers(
  settings: Settings,
  name: string,
  values: readonly string[],
): readonly HostPort[] {
  return values.flatMap((value) => {
    const [, bracketed, plain, port = '53'] =
      /^(?:\[(.+)\]|([^:]+|.*:.*:.*))(?::(\d{1,5}))?$/.exec(value) ?? [];
    const server = { ip: '', port: Number(port) };
    if (server.port < 1 || server.port > 65535) settings.faults.push(`${name}: ${value} has no port`);
    const ip = noteAddressFault(settings, name, () => parseIp(bracketed ?? plain ?? value));
    return ip === undefined ? [] : [{ ...server, ip }];
  });
}

function noteAddressFault<Value>(settings: Settings, name: string, parse: () => Value): Value | undefined {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof AddressError)) throw error;
    settings.faults.push(`${name}: ${error.message}`);
    return undefined;
  }
}
