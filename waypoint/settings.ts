import { X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { formatHostPort, type HostPort, parseIp } from '#api/address.ts';
import { readCertificateNames } from '#certs/leaf.ts';
import { splitPem } from '#certs/pem.ts';
import {
  durationMs,
  httpsAddress,
  type PemSource,
  pemSource,
  type Settings,
  type TokenSource,
  text,
  tokenSource,
} from '#ztunnel/config-values.ts';
import { LOG_LEVELS, type LogLevel, SETTING_FLAGS } from './setting-flags.ts';

/** How one waypoint runs. Made by {@link parseWaypointSettings}, printed at start without what is secret. */
export interface WaypointSettings {
  /** Of the Gateway, and with its service account the waypoint's identity. */
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount: string;
  /** Which of its replicas. */
  readonly instance: number;
  readonly clusterId: string;
  /** Absent: the one that the roots are of. */
  readonly trustDomain?: string;
  /** `https://host:port`, xDS and CA. */
  readonly controlPlane: string;
  /** Another name that its certificate may have. */
  readonly alternativeName?: string;
  readonly roots: PemSource;
  readonly token?: TokenSource;
  /** HBONE. */
  readonly listen: HostPort;
  readonly ports: { readonly admin: number; readonly metrics: number; readonly readiness: number };
  /** How long certificates are asked for. */
  readonly secretTtlMs: number;
  /** What may be held for callers, in bytes: beyond it, who holds most is shed. */
  readonly memoryBytes: number;
  /** How long requests and connections may go on after a stop was asked for. */
  readonly drainMs: number;
  /** Absent: to standard output. */
  readonly accessLog?: string;
  /** Path of the socket for the supervisor; absent: none. */
  readonly adminSocket?: string;
  /** That of the waypoint that this one replaces; absent: none. */
  readonly predecessor?: string;
  readonly logLevel: LogLevel;
}

/** Thrown for settings that cannot be, with all that is wrong, a line each. The process ends with `exitCode`. */
export class WaypointSettingsError extends Error {
  override readonly name = 'WaypointSettingsError';
  readonly exitCode = 2;
}

/** Address of the control plane inside the namespaces of a mesh on one machine. */
const STATE_CONTROL_PLANE = 'https://10.240.0.2:15012';

/** With less, a few requests with bodies would be too much. */
const MIN_MEMORY_BYTES = 16 * 1024 * 1024;

/** Flags by name without dashes, as far as they were given. */
export type GivenFlags = ReadonlyMap<string, string>;

/**
 * Puts together flags, environment and, with `--state`, what the folder of the mesh says; flags win.
 * @throws WaypointSettingsError
 */
export function parseWaypointSettings(
  flags: GivenFlags,
  env: Readonly<Record<string, string | undefined>>,
): WaypointSettings {
  const given = new Map<string, string>();
  for (const { flag, variable } of SETTING_FLAGS) {
    const value = flags.get(flag) ?? (variable === undefined ? undefined : env[variable]);
    if (value !== undefined && value !== '') given.set(`--${flag}`, value);
  }
  const settings: Settings = { env: Object.fromEntries(withStateDefaults(given)), faults: [] };
  const parsed = read(settings);
  if (settings.faults.length > 0) throw new WaypointSettingsError(settings.faults.join('\n'));
  return parsed;
}

function read(settings: Settings): WaypointSettings {
  const value = (flag: string): string | undefined => text(settings, `--${flag}`);
  const required = (flag: string): string => {
    if (value(flag) === undefined) settings.faults.push(`--${flag}: is not set`);
    return value(flag) ?? '';
  };
  const name = required('name');
  const token = value('token-file');
  const [accessLog, adminSocket] = [value('access-log'), value('admin-socket')];
  const predecessor = value('predecessor');
  const [trustDomain, alternativeName] = [value('trust-domain'), value('control-plane-name')];
  return {
    namespace: required('namespace'),
    name,
    serviceAccount: value('service-account') ?? name,
    instance: numberIn(settings, '--instance', 0),
    clusterId: value('cluster-id') ?? 'Kubernetes',
    ...(trustDomain !== undefined && { trustDomain }),
    controlPlane: controlPlaneAddress(settings, required('control-plane')),
    ...(alternativeName !== undefined && { alternativeName }),
    roots: pemSource(required('roots-file')),
    ...(token !== undefined && { token: tokenSource(token) }),
    listen: listenAddress(settings, value('listen') ?? '[::]:15008'),
    ports: {
      admin: numberIn(settings, '--admin-port', 15_000),
      metrics: numberIn(settings, '--metrics-port', 15_020),
      readiness: numberIn(settings, '--readiness-port', 15_021),
    },
    secretTtlMs: durationMs(settings, '--secret-ttl', 86_400_000),
    memoryBytes: memoryBytes(settings, value('memory-budget') ?? '256Mi'),
    drainMs: durationMs(settings, '--drain', 25_000),
    ...(accessLog !== undefined && { accessLog }),
    ...(adminSocket !== undefined && { adminSocket }),
    ...(predecessor !== undefined && { predecessor }),
    logLevel: logLevel(settings, value('log-level') ?? 'info'),
  };
}

/** What the folder of a mesh holds for the waypoint; what is given counts before it. */
function withStateDefaults(given: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  const state = given.get('--state');
  const namespace = given.get('--namespace');
  const name = given.get('--name');
  if (state === undefined || namespace === undefined || name === undefined) return given;
  const key = `${namespace}_${name}`;
  return new Map([
    ['--control-plane', STATE_CONTROL_PLANE],
    ['--roots-file', join(state, 'ca', 'bundle.pem')],
    ['--token-file', join(state, 'tokens', 'waypoints', key)],
    ['--access-log', join(state, 'logs', 'waypoints', key, 'access.jsonl')],
    ['--admin-socket', join(state, 'run', 'waypoints', `${key}-${given.get('--instance') ?? '0'}.sock`)],
    ...given,
  ]);
}

function controlPlaneAddress(settings: Settings, value: string): string {
  return value === '' ? value : httpsAddress(settings, '--control-plane', value);
}

/** A whole number that a port can be. */
function numberIn(settings: Settings, name: string, otherwise: number): number {
  const value = text(settings, name);
  if (value === undefined) return otherwise;
  if (/^\d{1,5}$/.test(value) && Number(value) <= 65_535) return Number(value);
  settings.faults.push(`${name}: ${JSON.stringify(value)} is not a number from 0 to 65535`);
  return otherwise;
}

/** `256Mi`, `1Gi`: from 16Mi. */
function memoryBytes(settings: Settings, value: string): number {
  const [, digits, unit] = /^(\d{1,5})(Mi|Gi)$/.exec(value) ?? [];
  const bytes = Number(digits) * (unit === 'Gi' ? 1024 : 1) * 1024 * 1024;
  if (bytes >= MIN_MEMORY_BYTES) return bytes;
  settings.faults.push(
    `--memory-budget: ${JSON.stringify(value)} is not a size from 16Mi, such as 256Mi or 1Gi`,
  );
  return MIN_MEMORY_BYTES;
}

function listenAddress(settings: Settings, value: string): HostPort {
  const [, bracketed, plain = bracketed, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(value) ?? [];
  try {
    if (plain !== undefined && Number(port) <= 65_535) return { ip: parseIp(plain), port: Number(port) };
  } catch {
    // said below
  }
  settings.faults.push(`--listen: ${JSON.stringify(value)} is not an address and a port such as [::]:15008`);
  return { ip: '::', port: 0 };
}

function logLevel(settings: Settings, value: string): LogLevel {
  const level = LOG_LEVELS.find((each) => each === value);
  if (level === undefined) {
    settings.faults.push(`--log-level: ${JSON.stringify(value)} is none of ${LOG_LEVELS.join(', ')}`);
  }
  return level ?? 'info';
}

/**
 * The trust domain that a bundle of roots is for: that which the SPIFFE IDs in them name.
 * @throws WaypointSettingsError when they name none, or several
 */
export function trustDomainOf(rootsPem: string): string {
  const domains = new Set(
    splitPem(rootsPem)
      .flatMap((pem) => readCertificateNames(new X509Certificate(pem).raw).uris)
      .flatMap((uri) => /^spiffe:\/\/([^/]+)/.exec(uri)?.[1] ?? []),
  );
  const [domain] = domains;
  if (domain !== undefined && domains.size === 1) return domain;
  throw new WaypointSettingsError(
    `--trust-domain: is not set, and the roots name ${domain === undefined ? 'none' : [...domains].join(', ')}`,
  );
}

/** The settings for a log, without what is secret. */
export function describeSettings(settings: WaypointSettings): object {
  const { roots, token, listen, ...others } = settings;
  return {
    ...others,
    listen: formatHostPort(listen),
    roots: roots.kind === 'file' ? roots.path : roots.kind,
    token: token?.kind === 'file' ? token.path : token?.kind,
  };
}
