import { isIPv4 } from 'node:net';
import { Message } from './wire.ts';

/** The workload API as a stock ztunnel reads it (fact sheet ambient-wire.md 4.4, 4.5): what it refuses is refused here. */

/** A port of a service on one workload. */
export interface Port {
  readonly servicePort: number;
  readonly targetPort: number;
}

export interface Workload {
  readonly kind: 'workload';
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly string[];
  readonly hbone: boolean;
  readonly trustDomain: string;
  readonly serviceAccount: string;
  readonly node: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly workloadType: string;
  readonly workloadName: string;
  /** By `namespace/hostname`. */
  readonly services: ReadonlyMap<string, readonly Port[]>;
  readonly policies: readonly string[];
  readonly healthy: boolean;
  readonly clusterId: string;
}

export interface Service {
  readonly kind: 'service';
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly addresses: readonly string[];
  readonly ports: readonly Port[];
  readonly subjectAltNames: readonly string[];
  readonly waypoint: boolean;
  readonly passthrough: boolean;
}

export type StringMatch =
  | { readonly kind: 'exact' | 'prefix' | 'suffix'; readonly value: string }
  | { readonly kind: 'presence' };

/** Fields that are set; what a call has to fulfil is in policy.ts. */
export interface Match {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
}

export interface Policy {
  readonly kind: 'policy';
  readonly name: string;
  readonly namespace: string;
  readonly scope: 'GLOBAL' | 'NAMESPACE' | 'WORKLOAD_SELECTOR';
  readonly action: 'ALLOW' | 'DENY';
  readonly dryRun: boolean;
  /** Rules of clauses of matches. */
  readonly rules: readonly (readonly (readonly Match[])[])[];
}

/** @throws Error with the reason for which a stock ztunnel rejects an Address */
export function readAddress(bytes: Uint8Array): Workload | Service {
  const message = new Message(bytes);
  const [workload, service] = [message.message(1), message.message(2)];
  if (workload !== undefined) return readWorkload(workload);
  if (service !== undefined) return readService(service);
  throw new Error('neither a workload nor a service');
}

function readWorkload(message: Message): Workload {
  checkGateway(message.message(8), 'waypoint');
  checkGateway(message.message(19), 'network_gateway');
  within(message.integer(25), 2, 'network_mode');
  within(message.integer(17), 2, 'status');
  return {
    kind: 'workload',
    uid: message.text(20),
    name: message.text(1),
    namespace: message.text(2),
    addresses: message.bytes(3).map(readIp),
    hbone: within(message.integer(5), 2, 'tunnel_protocol') === 1,
    trustDomain: message.text(6) || 'cluster.local',
    serviceAccount: message.text(7) || 'default',
    node: message.text(9),
    canonicalName: message.text(10),
    canonicalRevision: message.text(11),
    workloadType: choose(message.integer(12), ['deployment', 'cronjob', 'pod', 'job'], 'workload_type'),
    workloadName: message.text(13),
    services: new Map(message.messages(22).map(readServicePorts)),
    policies: message.texts(16),
    healthy: message.integer(17) === 0,
    clusterId: message.text(18) || 'Kubernetes',
  };
}

function readServicePorts(entry: Message): readonly [string, readonly Port[]] {
  const key = entry.text(1);
  if (!key.includes('/')) throw new Error(`service ${key} has no namespace`);
  return [key, entry.message(2)?.messages(1).map(readPort) ?? []];
}

function readService(message: Message): Service {
  const balancing = message.message(8);
  for (const scope of balancing?.integers(1) ?? []) {
    if (scope === 0) throw new Error('routing_preference has an unspecified scope');
    within(scope, 7, 'routing_preference');
  }
  within(balancing?.integer(3) ?? 0, 2, 'health_policy');
  within(message.integer(9), 4, 'ip_families');
  checkGateway(message.message(7), 'waypoint');
  return {
    kind: 'service',
    name: message.text(1),
    namespace: message.text(2),
    hostname: message.text(3),
    addresses: message.messages(4).flatMap((address) => address.bytes(2).map(readIp)),
    ports: message.messages(5).map(readPort),
    subjectAltNames: message.texts(6),
    waypoint: message.message(7) !== undefined,
    passthrough: within(balancing?.integer(2) ?? 0, 4, 'mode') === 3,
  };
}

function readPort(message: Message): Port {
  within(message.integer(3), 6, 'app_protocol');
  return { servicePort: message.integer(1), targetPort: message.integer(2) };
}

function checkGateway(gateway: Message | undefined, field: string): void {
  if (gateway === undefined) return;
  if (![1, 2].some((number) => gateway.message(number) !== undefined))
    throw new Error(`${field} has no destination`);
}

/** @throws Error with the reason for which a stock ztunnel rejects an Authorization */
export function readAuthorization(bytes: Uint8Array): Policy {
  const message = new Message(bytes);
  return {
    kind: 'policy',
    name: message.text(1),
    namespace: message.text(2),
    scope: choose(message.integer(3), ['GLOBAL', 'NAMESPACE', 'WORKLOAD_SELECTOR'], 'scope'),
    action: choose(message.integer(4), ['ALLOW', 'DENY'], 'action'),
    dryRun: message.integer(6) === 1,
    rules: message
      .messages(5)
      .map((rule) => rule.messages(1).map((clause) => clause.messages(2).map(readMatch))),
  };
}

function readMatch(message: Message): Match {
  const strings = (number: number): readonly StringMatch[] => message.messages(number).map(readString);
  const unread = message.numbers.filter((number) => number > 10 || (number >= 5 && number <= 8));
  if (unread.length > 0) throw new Error(`fields ${unread.join(', ')} of a match are not read here`);
  return {
    namespaces: strings(1),
    notNamespaces: strings(2),
    principals: strings(3),
    notPrincipals: strings(4),
    destinationPorts: message.integers(9),
    notDestinationPorts: message.integers(10),
  };
}

function readString(message: Message): StringMatch {
  const [number] = message.numbers;
  if (number === 4) return { kind: 'presence' };
  const kind = choose(number ?? 0, [undefined, 'exact', 'prefix', 'suffix'] as const, 'StringMatch');
  if (kind === undefined) throw new Error('StringMatch is empty');
  return { kind, value: message.text(number ?? 0) };
}

/** An address as Node prints it; IPv6 in its canonical form. */
export function readIp(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.');
  if (bytes.length !== 16) throw new Error(`an address has ${bytes.length} bytes`);
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2).toString(16));
  return canonicalIp(groups.join(':'));
}

/** One spelling an address; an IPv4 address that IPv6 carries becomes itself. */
export function canonicalIp(ip: string): string {
  const bare = ip.startsWith('::ffff:') && isIPv4(ip.slice(7)) ? ip.slice(7) : ip;
  return isIPv4(bare) ? bare : new URL(`http://[${bare}]`).hostname.slice(1, -1);
}

function within(value: number, end: number, field: string): number {
  if (value >= end) throw new Error(`${field} has the unknown value ${value}`);
  return value;
}

function choose<T>(value: number, values: readonly T[], field: string): T {
  within(value, values.length, field);
  return values[value] as T;
}
