import { readdirSync, readFileSync } from 'node:fs';
import { Counter, Gauge, Histogram, type OpenMetricsContentType, type Registry } from 'prom-client';
import type { SubscriptionMetrics } from '#api/delta-client.ts';
import type { AccessRecord } from './access-log.ts';
import type { QueryReport } from './dns/respond.ts';
import { SHORTAGES, type Shortage } from './shedding.ts';
import { reportersOf, TRAFFIC_LABELS, type TrafficCount, type TrafficTotals } from './traffic-series.ts';

/** The registry of a ztunnel's metrics. */
export type MetricRegistry = Registry<OpenMetricsContentType>;

/** Pods by what has become of them. */
export interface PodCounts {
  readonly active: number;
  readonly pending: number;
}

/** Takes one DNS query; `client`: canonical service and revision of who asked. */
export type DnsQueryObserver = (
  report: QueryReport,
  client: { readonly name: string; readonly revision: string },
) => void;

/** What is counted of pods. */
export interface PodMetrics {
  readonly podStarted: () => void;
  readonly podStopped: () => void;
}

/** What is counted here only. */
export interface OwnMetrics {
  /** A record's verdict or refusal. */
  readonly decision: (record: AccessRecord) => void;
  readonly handedOver: (kind: string, outcome: string) => void;
  readonly workerCrashed: () => void;
  readonly accessLogDropped: (lines: number) => void;
  readonly certificateFailed: () => void;
  readonly shed: (shortage: Shortage, count: number) => void;
}

const TRAFFIC: readonly (readonly [name: string, help: string, count: TrafficCount])[] = [
  ['istio_tcp_connections_opened_total', 'The total number of TCP connections opened.', 'opened'],
  ['istio_tcp_connections_closed_total', 'The total number of TCP connections closed.', 'closed'],
  [
    'istio_tcp_received_bytes_total',
    'The size of total bytes received during request in case of a TCP connection.',
    'receivedBytes',
  ],
  [
    'istio_tcp_sent_bytes_total',
    'The size of total bytes sent during response in case of a TCP connection.',
    'sentBytes',
  ],
  [
    'istio_tcp_connections_failed_total',
    'The total number of TCP connections that failed to establish (unstable).',
    'failed',
  ],
];

const DNS_LABELS: readonly string[] = [
  'request_query_type',
  'request_protocol',
  'source_canonical_service',
  'source_canonical_revision',
];
const DNS_BUCKETS: readonly number[] = [0.0005, 0.001, 0.01, 0.1, 1, 5];

/** What the process is and holds. */
export function registerProcess(registry: MetricRegistry, version: string): void {
  gauge(
    registry,
    'process_open_fds',
    'Number of open file descriptors',
    () => readdirSync('/proc/self/fd').length,
  );
  gauge(registry, 'process_max_fds', 'Maximum number of file descriptors', maxOpenFiles);
  const labelNames = ['component', 'tag'];
  const build = new Gauge({
    name: 'istio_build',
    help: 'Istio component build info.',
    labelNames,
    registers: [registry],
  });
  build.set({ component: 'ztunnel', tag: version }, 1);
}

/** Messages from the control plane. */
export function registerXds(registry: MetricRegistry): SubscriptionMetrics {
  const terminations = counter(
    registry,
    'istio_xds_connection_terminations_total',
    'The total number of completed connections to xds server (unstable).',
    ['reason'],
  );
  const help = 'Total number of messages received (unstable).';
  const messages = counter(registry, 'istio_xds_message_total', help, ['url']);
  const bytesHelp = 'Total number of bytes received (unstable).';
  const messageBytes = counter(registry, 'istio_xds_message_bytes_total', bytesHelp, ['url']);
  return {
    onMessage: (url, bytes) => {
      messages.inc({ url });
      messageBytes.inc({ url }, bytes);
    },
    onTermination: (reason) => terminations.inc({ reason }),
  };
}

/** Connections and bytes. */
export function registerTraffic(registry: MetricRegistry, traffic: TrafficTotals): void {
  for (const [name, help, count] of TRAFFIC) {
    const labelNames = [...TRAFFIC_LABELS];
    new Counter({
      name,
      help,
      labelNames,
      registers: [registry],
      collect() {
        this.reset();
        for (const series of traffic.series()) {
          const labels = Object.fromEntries(labelNames.map((label, at) => [label, series.values[at] ?? '']));
          if (series[count] > 0 || isOwnCount(count, labels)) this.inc(labels, series[count]);
        }
      },
    });
  }
  new Gauge({
    name: 'istio_tcp_sockets_open',
    help: 'The current number of open TCP sockets (unstable).',
    labelNames: ['reporter'],
    registers: [registry],
    collect() {
      this.reset();
      for (const [reporter, open] of traffic.open()) this.set({ reporter }, open);
    },
  });
}

/** Bytes are shown from the first record on, also 0 of them; the others once there is something to count. */
function isOwnCount(count: TrafficCount, labels: Readonly<Record<string, string>>): boolean {
  return (count === 'receivedBytes' || count === 'sentBytes') && labels['response_flags'] === '-';
}

/** Pods that are served. */
export function registerPods(registry: MetricRegistry, counts: () => PodCounts): PodMetrics {
  const total = 'The total number';
  gauge(
    registry,
    'workload_manager_active_proxy_count',
    `${total} current workloads with active proxies (unstable).`,
    () => counts().active,
  );
  gauge(
    registry,
    'workload_manager_pending_proxy_count',
    `${total} current workloads with pending proxies (unstable).`,
    () => counts().pending,
  );
  const started = counter(
    registry,
    'workload_manager_proxies_started_total',
    `${total} of proxies that were started (unstable).`,
  );
  const stopped = counter(
    registry,
    'workload_manager_proxies_stopped_total',
    `${total} of proxies that were stopped (unstable).`,
  );
  return { podStarted: () => started.inc(), podStopped: () => stopped.inc() };
}

/** DNS queries and what became of them. */
export function registerDns(registry: MetricRegistry): DnsQueryObserver {
  const requests = counter(
    registry,
    'istio_dns_requests_total',
    'Total number of DNS requests (unstable).',
    DNS_LABELS,
  );
  const upstream = counter(
    registry,
    'istio_dns_upstream_requests_total',
    'Total number of DNS requests forwarded to upstream (unstable).',
    DNS_LABELS,
  );
  const failures = counter(
    registry,
    'istio_dns_upstream_failures_total',
    'Total number of DNS upstream failures (unstable).',
    DNS_LABELS,
  );
  const duration = new Histogram({
    name: 'istio_dns_upstream_request_duration_seconds',
    help: 'Total time in seconds Istio takes to get DNS response from upstream (unstable).',
    labelNames: [...DNS_LABELS],
    buckets: [...DNS_BUCKETS],
    registers: [registry],
  });
  return ({ type, protocol, outcome, durationMs }, client) => {
    const labels = {
      request_query_type: type,
      request_protocol: protocol,
      source_canonical_service: client.name || 'unknown',
      source_canonical_revision: client.revision || 'unknown',
    };
    requests.inc(labels);
    if (outcome !== 'forwarded' && outcome !== 'forward-failed') return;
    upstream.inc(labels);
    if (outcome === 'forward-failed') failures.inc(labels);
    else duration.observe(labels, durationMs / 1000);
  };
}

/** Memory in which bytes wait for slow readers. */
export interface MemoryFigures {
  readonly budgetBytes: number;
  readonly usedBytes: () => number;
}

/** What of the budget is used. */
export function registerMemory(registry: MetricRegistry, { budgetBytes, usedBytes }: MemoryFigures): void {
  const of = 'memory for bytes that wait for slow readers';
  gauge(registry, 'tulle_memory_budget_bytes', `The most ${of}.`, () => budgetBytes);
  gauge(registry, 'tulle_memory_used_bytes', `The ${of}.`, usedBytes);
}

/** Decisions and failures that stock metrics do not tell. */
export function registerOwn(registry: MetricRegistry, missingPolicies: () => number): OwnMetrics {
  const verdicts = counter(
    registry,
    'tulle_policy_verdicts_total',
    'Connections by what policy said of them, counted when they end.',
    ['verdict', 'reason'],
  );
  const refused = counter(
    registry,
    'tulle_connections_refused_total',
    'Connections that were refused before they were opened.',
    ['reporter', 'reason'],
  );
  const crashes = counter(
    registry,
    'tulle_worker_crashes_total',
    'Byte workers that crashed and were replaced.',
  );
  const dropped = counter(
    registry,
    'tulle_access_log_dropped_total',
    'Access log lines that were not written, because the disk was too slow or failed.',
  );
  const handedOver = counter(
    registry,
    'tulle_connections_handed_over_total',
    'Established connections that a restart of the ztunnel met, by what became of them.',
    ['kind', 'outcome'],
  );
  const certificates = counter(
    registry,
    'tulle_certificate_failures_total',
    'Requests for certificates that failed and are tried again.',
  );
  const shed = counter(
    registry,
    'tulle_connections_shed_total',
    'Connections that were refused or given up for want of something.',
    ['shortage'],
  );
  for (const shortage of SHORTAGES) shed.inc({ shortage }, 0);
  gauge(
    registry,
    'tulle_missing_policies',
    'Policies that local workloads name and that the control plane has not sent.',
    missingPolicies,
  );
  return {
    decision: (record) => {
      const { event, reason } = record;
      if (reason === undefined || (event !== 'closed' && event !== 'failed')) return;
      const reporters = reportersOf(record);
      if (event === 'failed') for (const reporter of reporters) refused.inc({ reporter, reason });
      if (reporters.includes('destination'))
        verdicts.inc({ verdict: record.flags === 'DENY' ? 'deny' : 'allow', reason });
    },
    handedOver: (kind, outcome) => handedOver.inc({ kind, outcome }),
    workerCrashed: () => crashes.inc(),
    accessLogDropped: (lines) => dropped.inc(lines),
    certificateFailed: () => certificates.inc(),
    shed: (shortage, count) => shed.inc({ shortage }, count),
  };
}

function counter(
  registry: MetricRegistry,
  name: string,
  help: string,
  labelNames: readonly string[] = [],
): Counter<string> {
  return new Counter({ name, help, labelNames: [...labelNames], registers: [registry] });
}

function gauge(registry: MetricRegistry, name: string, help: string, read: () => number): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(read());
    },
  });
}

function maxOpenFiles(): number {
  const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  return Number(soft ?? 0);
}
