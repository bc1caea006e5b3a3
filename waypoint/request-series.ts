import { formatIdentity } from '#certs/identity.ts';
import type { Caller } from './exchange.ts';
import { Distribution, familyHead, type Labels, labelText } from './metric-text.ts';
import type { Endpoint, Frontend } from './model.ts';
import type { RequestRecord } from './request-record.ts';

/** Sets of labels that are told apart; what comes beyond is counted as `other`. A scrape's size depends on it. */
const MAX_SERIES = 1_000;
/** Callers and endpoints that are told apart: the former say themselves what they are called. */
const MAX_PEERS = 1_000;
/** Series that are put into text in one go: requests wait for that. */
const SERIES_A_TURN = 20;

interface Series {
  readonly labels: string;
  readonly isTcp: boolean;
  /** Of TCP connections. */
  opened: number;
  /** That are over. */
  count: number;
  bytesReceived: number;
  bytesSent: number;
  readonly duration: Distribution;
  readonly requestBytes: Distribution;
  readonly responseBytes: Distribution;
}

/** Labels under a small number, which makes short keys. */
interface Peer {
  readonly id: number;
  readonly labels: Labels;
}

/**
 * Istio's standard metrics of requests and TCP connections, reported by the waypoint. Every request is counted, so labels are made
 * once for a caller, an endpoint and a service, and put together once for each set of them.
 */
export class RequestSeries {
  readonly #series = new Map<string, Series>();
  readonly #sources = new Peers<Caller>(sourceLabels);
  readonly #endpoints = new Peers<Endpoint>(destinationLabels);
  readonly #services = new Map<string, Peer>();

  /** A TCP connection is open; `add` follows when it is over, perhaps with other flags. */
  open(record: RequestRecord): void {
    this.#seriesOf(record, true).opened += 1;
  }

  add(record: RequestRecord): void {
    const isTcp = record.protocol === 'TCP';
    const series = this.#seriesOf(record, isTcp);
    series.count += 1;
    series.bytesReceived += record.bytesReceived;
    series.bytesSent += record.bytesSent;
    if (isTcp) return;
    series.duration.observe(record.durationMs);
    series.requestBytes.observe(record.bytesReceived);
    series.responseBytes.observe(record.bytesSent);
  }

  /** All of it as text, in turns, between which requests are served. */
  async text(): Promise<string> {
    const all = [...this.#series.values()];
    const http = all.filter(({ isTcp }) => !isTcp);
    const tcp = all.filter(({ isTcp }) => isTcp);
    const families: string[] = [
      counter('istio_requests_total', 'Requests.', http, ({ count }) => count),
      counter('istio_tcp_connections_opened_total', 'TCP connections opened.', tcp, ({ opened }) => opened),
      counter('istio_tcp_connections_closed_total', 'TCP connections closed.', tcp, ({ count }) => count),
      counter('istio_tcp_received_bytes_total', 'Bytes from callers.', tcp, (one) => one.bytesReceived),
      counter('istio_tcp_sent_bytes_total', 'Bytes to callers.', tcp, (one) => one.bytesSent),
      await histogram(
        'istio_request_duration_milliseconds',
        'Duration of requests.',
        http,
        (one) => one.duration,
      ),
      await histogram('istio_request_bytes', 'Bytes of request bodies.', http, (one) => one.requestBytes),
      await histogram('istio_response_bytes', 'Bytes of response bodies.', http, (one) => one.responseBytes),
    ];
    return families.join('');
  }

  #seriesOf(record: RequestRecord, isTcp: boolean): Series {
    const { caller, endpoint, status, flags, grpcStatus } = record;
    const source = this.#sources.of(caller);
    const destination = endpoint === undefined ? NOBODY : this.#endpoints.of(endpoint);
    const service = this.#serviceOf(record);
    const flagText = flags.length === 0 ? '-' : flags.join(',');
    const protocol = isTcp ? 'tcp' : record.request?.isGrpc === true ? 'grpc' : 'http';
    const key = `${source.id}|${destination.id}|${service.id}|${status}|${flagText}|${grpcStatus ?? ''}|${protocol}`;
    const known = this.#series.get(key);
    if (known !== undefined) return known;
    const isFull = this.#series.size >= MAX_SERIES;
    const labels: Labels = [
      ['reporter', 'waypoint'],
      ...(isFull ? OTHER_SOURCE : source.labels),
      ...(isFull ? OTHER_DESTINATION : destination.labels),
      ...(isFull ? OTHER_SERVICE : service.labels),
      ['request_protocol', protocol],
      ...(isTcp ? [] : ([['response_code', isFull ? 'other' : String(status)]] as const)),
      ...(grpcStatus === undefined || isFull
        ? []
        : ([['grpc_response_status', String(grpcStatus)]] as const)),
      ['response_flags', isFull ? 'other' : flagText],
      ['connection_security_policy', 'mutual_tls'],
    ];
    return this.#open(isFull ? `other|${protocol}` : key, labels, isTcp);
  }

  #open(key: string, labels: Labels, isTcp: boolean): Series {
    const known = this.#series.get(key);
    if (known !== undefined) return known;
    const series: Series = {
      labels: labelText(labels).slice(1, -1),
      isTcp,
      opened: 0,
      count: 0,
      bytesReceived: 0,
      bytesSent: 0,
      duration: new Distribution(),
      requestBytes: new Distribution(),
      responseBytes: new Distribution(),
    };
    this.#series.set(key, series);
    return series;
  }

  /** The service that answered, or else was asked for. */
  #serviceOf({ cluster, backend, frontend }: RequestRecord): Peer {
    const key = backend === '' ? frontend.name : cluster;
    const known = this.#services.get(key);
    if (known !== undefined) return known;
    const peer = { id: this.#services.size, labels: serviceLabels(cluster, backend, frontend) };
    if (this.#services.size < MAX_PEERS) this.#services.set(key, peer);
    return peer;
  }
}

/** Numbers labels of objects that come and go, those with the same text the same. */
class Peers<Key extends object> {
  readonly #labelsOf: (key: Key) => Labels;
  readonly #known = new WeakMap<Key, Peer>();
  readonly #byText = new Map<string, Peer>();

  constructor(labelsOf: (key: Key) => Labels) {
    this.#labelsOf = labelsOf;
  }

  of(key: Key): Peer {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const peer = this.#find(this.#labelsOf(key));
    this.#known.set(key, peer);
    return peer;
  }

  #find(labels: Labels): Peer {
    const text = labelText(labels);
    const known = this.#byText.get(text);
    if (known !== undefined) return known;
    const isFull = this.#byText.size >= MAX_PEERS;
    const peer: Peer = isFull
      ? { id: -2, labels: labels.map(([name]) => [name, 'other'] as const) }
      : { id: this.#byText.size, labels };
    if (!isFull) this.#byText.set(text, peer);
    return peer;
  }
}

const SOURCE_NAMES: readonly string[] = [
  ...['workload', 'canonical_service', 'canonical_revision', 'workload_namespace'],
  ...['principal', 'app', 'version', 'cluster'],
];
const SERVICE_NAMES: readonly string[] = ['service', 'service_name', 'service_namespace'];
const OTHER_SOURCE: Labels = SOURCE_NAMES.map((name) => [`source_${name}`, 'other']);
const OTHER_DESTINATION: Labels = SOURCE_NAMES.map((name) => [`destination_${name}`, 'other']);
const OTHER_SERVICE: Labels = SERVICE_NAMES.map((name) => [`destination_${name}`, 'other']);
const NOBODY: Peer = { id: -1, labels: SOURCE_NAMES.map((name) => [`destination_${name}`, 'unknown']) };

function sourceLabels({ identity, baggage }: Caller): Labels {
  const values = [
    ...[baggage.workloadName, baggage.service, baggage.revision, identity.namespace],
    ...[formatIdentity(identity), baggage.service, baggage.revision, baggage.cluster],
  ];
  return SOURCE_NAMES.map((name, at) => [`source_${name}`, orUnknown(values[at])]);
}

function destinationLabels({ workload, identity }: Endpoint): Labels {
  const { canonicalName, canonicalRevision } = workload;
  const values = [
    ...[workload.workload ?? workload.name, canonicalName, canonicalRevision, workload.namespace],
    ...[identity && formatIdentity(identity), canonicalName, canonicalRevision, workload.cluster],
  ];
  return SOURCE_NAMES.map((name, at) => [`destination_${name}`, orUnknown(values[at])]);
}

function serviceLabels(cluster: string, backend: string, frontend: Frontend): Labels {
  const slash = frontend.service.indexOf('/');
  const hostname =
    backend === '' ? frontend.service.slice(slash + 1) : cluster.slice(cluster.lastIndexOf('|') + 1);
  const [, namespace, name] = /^([^/]+)\/([^:]+)/.exec(backend) ?? [];
  const values = [
    hostname,
    name ?? hostname.split('.')[0],
    namespace ?? frontend.service.slice(0, Math.max(slash, 0)),
  ];
  return SERVICE_NAMES.map((label, at) => [`destination_${label}`, orUnknown(values[at])]);
}

function orUnknown(value: string | undefined): string {
  return value === undefined || value === '' ? 'unknown' : value;
}

function counter(
  name: string,
  help: string,
  series: readonly Series[],
  value: (series: Series) => number,
): string {
  const lines = series.map((one) => `${name}{${one.labels}} ${value(one)}\n`);
  return familyHead(name, help, 'counter') + lines.join('');
}

async function histogram(
  name: string,
  help: string,
  series: readonly Series[],
  distribution: (series: Series) => Distribution,
): Promise<string> {
  let text = familyHead(name, help, 'histogram');
  for (const [at, one] of series.entries()) {
    text += distribution(one).text(name, one.labels);
    if (at % SERIES_A_TURN === SERIES_A_TURN - 1) await nextTurn();
  }
  return text;
}

async function nextTurn(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setImmediate(resolve);
  await promise;
}
