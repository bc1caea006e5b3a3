import { formatHostPort, type HostPort } from '#api/address.ts';
import { formatIdentity } from '#certs/identity.ts';
import type { AccessLogWriter } from '#ztunnel/access-log-writer.ts';
import type { Caller } from './exchange.ts';
import type { Endpoint } from './model.ts';
import type { RequestRecord } from './request-record.ts';

/**
 * A record as a line of JSON: Envoy's and Istio's field names where they have one, a ztunnel's for callers and workloads. Written
 * out by hand, as each request pays for it; what is long and the same for many is kept.
 */
export function formatRequestRecord(record: RequestRecord): string {
  const { request, flags, details, endpoint, upstreamMs, faults, grpcStatus, origin } = record;
  const optional = [
    ...(details === '' ? [] : [`,"response_code_details":${quote(details)}`]),
    ...(grpcStatus === undefined ? [] : [`,"grpc_status":${grpcStatus}`]),
    ...(upstreamMs === undefined ? [] : [`,"upstream_service_time":${Math.round(upstreamMs)}`]),
    ...(record.cluster === '' ? [] : [`,"upstream_cluster":${quote(record.cluster)}`]),
    ...(record.backend === '' ? [] : [`,"backend":${quote(record.backend)}`]),
    ...(record.route === '' ? [] : [`,"route_name":${quote(record.route)}`]),
    ...(origin?.ruleName === undefined ? [] : [`,"rule_name":${quote(origin.ruleName)}`]),
    ...(record.attempts === 0 ? [] : [`,"attempts":${record.attempts}`]),
    ...(record.retrySkipped === undefined ? [] : [`,"retry_skipped":"${record.retrySkipped}"`]),
    ...(faults.length === 0 ? [] : [`,"faults":${quote(faults.join(','))}`]),
    ...(endpoint === undefined ? [] : [textOfEndpoint(endpoint)]),
  ].join('');
  return (
    `{"start_time":"${timeText(record.startMs)}","scope":"access"` +
    `${request === undefined ? '' : textOfRequest(request)},"protocol":"${record.protocol}"` +
    `,"response_code":${record.status},"response_flags":"${flags.length === 0 ? '-' : flags.join(',')}"` +
    `,"bytes_received":${record.bytesReceived},"bytes_sent":${record.bytesSent}` +
    `,"duration":${Math.round(record.durationMs)},"dst.service":${quote(record.frontend.service)}` +
    `,"destination":${quote(record.destination)}${optional}${textOfCaller(record.caller)}}`
  );
}

/** A CONNECT that led nowhere, as a line. */
export function formatRefusedTunnel(refused: {
  readonly caller: Caller;
  readonly authority: string;
  readonly status: number;
  readonly reason: string;
}): string {
  const { caller, authority, status, reason } = refused;
  return (
    `{"start_time":"${timeText(Date.now())}","scope":"access","method":"CONNECT","authority":${quote(authority)}` +
    `,"protocol":"HBONE","response_code":${status},"response_flags":"${status === 404 ? 'NR' : 'DPE'}"` +
    `,"response_code_details":${quote(reason)}${textOfCaller(caller)}}`
  );
}

/** A connection that never became a session, as a line. @param remote where it came from, if that is known */
export function formatFailedSession(remote: HostPort | undefined, reason: string): string {
  const from = remote === undefined ? '' : `,"downstream_remote_address":${quote(formatHostPort(remote))}`;
  return (
    `{"start_time":"${timeText(Date.now())}","scope":"access","protocol":"HBONE","response_code":0` +
    `,"response_flags":"DPE","response_code_details":${quote(reason)}${from}}`
  );
}

/** Lines, written together a few times a second: an append costs more than all of a line's text. */
export class RequestLogWriter {
  readonly #writer: AccessLogWriter;
  readonly #intervalMs: number;
  #lines: string[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(writer: AccessLogWriter, intervalMs: number = FLUSH_MS) {
    this.#writer = writer;
    this.#intervalMs = intervalMs;
  }

  write(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length >= FLUSH_LINES) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), this.#intervalMs).unref();
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const lines = this.#lines;
    this.#lines = [];
    this.#writer.write(lines);
  }

  /** Writes what waits and closes the file. */
  async close(): Promise<void> {
    this.flush();
    await this.#writer.close();
  }
}

const FLUSH_MS = 100;
const FLUSH_LINES = 512;

function textOfRequest(request: NonNullable<RequestRecord['request']>): string {
  const { method, path, authority, id, userAgent, traceparent } = request;
  return (
    `,"method":${quote(method)},"path":${quote(path)},"authority":${quote(authority)}` +
    `${id === '' ? '' : `,"request_id":${quote(id)}`}` +
    `${userAgent === '' ? '' : `,"user_agent":${quote(userAgent)}`}` +
    `${traceparent === '' ? '' : `,"traceparent":${quote(traceparent)}`}`
  );
}

/** A caller lives as long as its tunnel, an endpoint as long as nothing changes. */
const callers = new WeakMap<Caller, string>();
const endpoints = new WeakMap<Endpoint, string>();

function textOfCaller(caller: Caller): string {
  const known = callers.get(caller);
  if (known !== undefined) return known;
  const { identity, address, baggage, connectionId } = caller;
  const text = fields([
    ['downstream_remote_address', formatHostPort(address)],
    ['src.workload', baggage.workloadName],
    ['src.namespace', identity.namespace],
    ['src.identity', formatIdentity(identity)],
    ['src.cluster', baggage.cluster],
    ['connection_id', connectionId],
  ]);
  callers.set(caller, text);
  return text;
}

function textOfEndpoint(endpoint: Endpoint): string {
  const known = endpoints.get(endpoint);
  if (known !== undefined) return known;
  const { workload, identity } = endpoint;
  const text = fields([
    ['upstream_host', formatHostPort(endpoint.address)],
    ['dst.workload', workload.name],
    ['dst.namespace', workload.namespace],
    ['dst.identity', identity && formatIdentity(identity)],
    ['dst.cluster', workload.cluster],
  ]);
  endpoints.set(endpoint, text);
  return text;
}

function fields(pairs: readonly (readonly [string, string | undefined])[]): string {
  return pairs
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([name, value = '']) => `,"${name}":${quote(value)}`)
    .join('');
}

const NEEDS_ESCAPES = /[^ !#-[\]-~]/;

/** What came from outside never ends a string, or a line. */
function quote(text: string): string {
  return NEEDS_ESCAPES.test(text) ? JSON.stringify(text) : `"${text}"`;
}

let second = -1;
let secondText = '';

/** RFC 3339 with milliseconds. */
function timeText(ms: number): string {
  const whole = Math.floor(ms / 1000);
  if (whole !== second) {
    second = whole;
    secondText = new Date(whole * 1000).toISOString().slice(0, 20);
  }
  return `${secondText}${String(Math.floor(ms) - whole * 1000).padStart(3, '0')}Z`;
}
