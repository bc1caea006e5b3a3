import { randomFillSync } from 'node:crypto';
import { formatHostPort, type HostPort } from '#api/address.ts';
import type { Workload } from '#api/workload.ts';
import { parseAuthority } from './authority.ts';
import type { Field } from './hpack-tables.ts';

/** Who a workload is, as the `baggage` header tells the other end for its log and metrics; never for authorization. */
export interface Baggage {
  readonly cluster?: string;
  readonly namespace?: string;
  readonly workloadName?: string;
  readonly workloadType?: string;
  readonly service?: string;
  readonly revision?: string;
  readonly region?: string;
  readonly zone?: string;
}

/** Longest header value that is read; longer ones are as good as absent. */
const MAX_VALUE = 4096;
/** Longest name in baggage: that of anything in Kubernetes. It becomes a label of metrics. */
const MAX_BAGGAGE_VALUE = 253;
const PRINTABLE = /^[\x20-\x7e]*$/;
const WORKLOAD_KEY = /^k8s\.(deployment|cronjob|pod|job)\.name$/;

/** `k8s.cluster.name=…,k8s.namespace.name=…,k8s.pod.name=…,service.name=…`: fact sheet ambient-wire.md, 1.3. */
export function formatBaggage(workload: Workload): string {
  const known = formatted.get(workload);
  if (known !== undefined) return known;
  const { region, zone } = workload.locality;
  const text = [
    ['k8s.cluster.name', workload.clusterId],
    ['k8s.namespace.name', workload.namespace],
    [`k8s.${workload.workloadType.toLowerCase()}.name`, workload.workloadName],
    ['service.name', workload.canonicalName],
    ['service.version', workload.canonicalRevision],
    ['cloud.region', region],
    ['cloud.availability_zone', zone],
  ]
    .filter(([, value = '']) => value !== '' && PRINTABLE.test(value))
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
  formatted.set(workload, text);
  return text;
}

/** A workload's text does not change, and every connection sends it. */
const formatted = new WeakMap<Workload, string>();

/** What is known of a `baggage` header; the rest, and what is malformed, is passed over. */
export function parseBaggage(text: string): Baggage {
  const baggage: { -readonly [Key in keyof Baggage]: Baggage[Key] } = {};
  if (text.length > MAX_VALUE) return baggage;
  for (const member of text.split(',')) {
    const equals = member.indexOf('=');
    const key = member.slice(0, Math.max(equals, 0)).trim();
    const value = member.slice(equals + 1).trim();
    if (value === '' || value.length > MAX_BAGGAGE_VALUE) continue;
    const type = WORKLOAD_KEY.exec(key)?.[1];
    if (type !== undefined) {
      baggage.workloadName = value;
      baggage.workloadType = type;
    } else if (key === 'k8s.cluster.name') baggage.cluster = value;
    else if (key === 'k8s.namespace.name') baggage.namespace = value;
    else if (key === 'service.name') baggage.service = value;
    else if (key === 'service.version') baggage.revision = value;
    else if (key === 'cloud.region') baggage.region = value;
    else if (key === 'cloud.availability_zone') baggage.zone = value;
  }
  return baggage;
}

/** `for="10.0.0.1:40000"`, and `;host=name` where the service is known. */
export function formatForwarded(client: HostPort, host: string | undefined): string {
  const forwarded = `for="${formatHostPort(client)}"`;
  return host === undefined ? forwarded : `${forwarded};host=${host}`;
}

/** The `host` of a `forwarded` header's first element, lower case, quoted or not. */
export function parseForwardedHost(text: string): string | undefined {
  return forwardedValue(text, 'host')?.toLowerCase();
}

/** The `for` of a `forwarded` header's first element, where it is an address with a port. */
export function parseForwardedClient(text: string): HostPort | undefined {
  const authority = parseAuthority(forwardedValue(text, 'for') ?? '');
  return authority?.kind === 'address' ? authority.address : undefined;
}

function forwardedValue(text: string, name: 'for' | 'host'): string | undefined {
  if (text.length > MAX_VALUE) return undefined;
  const [element = ''] = text.split(',');
  for (const pair of element.split(';')) {
    const equals = pair.indexOf('=');
    if (pair.slice(0, Math.max(equals, 0)).trim().toLowerCase() !== name) continue;
    const value = pair.slice(equals + 1).trim();
    const bare =
      value.startsWith('"') && value.endsWith('"') && value.length > 1 ? value.slice(1, -1) : value;
    return bare === '' ? undefined : bare;
  }
  return undefined;
}

/** A W3C trace context of its own for a connection: version 00, not sampled. */
export function newTraceparent(): string {
  return `00-${randomHex(16)}-${randomHex(8)}-00`;
}

/**
 * Header of a CONNECT with which a waypoint says for whom it asks: a SPIFFE ID. It counts only from a waypoint that is bound to
 * the destination.
 */
export const CALLER_HEADER = 'x-tulle-caller' as const;

/**
 * Header with the ID of a connection, the same in the access logs of both ends. A server that can hand the connection over says it
 * back in its 200.
 */
export const CONNECTION_ID_HEADER = 'x-tulle-connection' as const;

/** Header of a CONNECT that takes a connection up which another session had carried: its ID. */
export const RESUME_HEADER = 'x-tulle-resume' as const;

/** An ID for a connection, the same in both logs: 128 random bits. */
export function newConnectionId(): string {
  return randomHex(16);
}

const CONNECTION_ID = /^[0-9a-f]{32}$/;

/** A connection's ID as the other end has sent it; undefined for anything else. */
export function parseConnectionId(text: string | undefined): string | undefined {
  return text !== undefined && CONNECTION_ID.test(text) ? text : undefined;
}

/** Random bytes in stock: asking for a few at a time costs far more. */
const randomBytes = Buffer.alloc(8192);
let randomUsed = randomBytes.length;

function randomHex(bytes: number): string {
  if (randomUsed + bytes > randomBytes.length) {
    randomFillSync(randomBytes);
    randomUsed = 0;
  }
  randomUsed += bytes;
  return randomBytes.toString('hex', randomUsed - bytes, randomUsed);
}

/** The first value of a header field. */
export function fieldOf(fields: readonly Field[], name: string): string | undefined {
  return fields.find(([each]) => each === name)?.[1];
}
