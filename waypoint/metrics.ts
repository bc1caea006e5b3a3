import { readdirSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { SubscriptionMetrics } from '#api/delta-client.ts';
import type { TypeCounts } from './configuration.ts';
import { CounterFamily, counterText, gaugeText } from './metric-text.ts';
import type { RequestRecord } from './request-record.ts';
import { RequestSeries } from './request-series.ts';
import { nameOfAbsent } from './route-counts.ts';

/** What is asked for when metrics are read. */
export interface GaugeSources {
  readonly sessions: () => number;
  readonly tunnels: () => number;
  /** Connections upstream, by kind. */
  readonly upstream: () => Readonly<Record<string, number>>;
  /** Copies of requests: those under way, and all so far that were sent or left out. */
  readonly mirrors: () => { readonly active: number; readonly sent: number; readonly dropped: number };
  readonly xds: () => readonly TypeCounts[];
  readonly memory: () => MemoryFigures;
  /** Tunnels that a restart met, by `kind outcome`. */
  readonly handedOver: () => ReadonlyMap<string, number>;
}

/** What is held for callers, what it may be at most, and how many had to go for it. */
export interface MemoryFigures {
  readonly heldBytes: number;
  readonly budgetBytes: number;
  readonly shedCount: number;
}

/** The metrics of one waypoint: Istio's names and labels, ours with the prefix `tulle_`. */
export interface WaypointMetrics {
  readonly record: (record: RequestRecord) => void;
  /** A TCP connection is open. */
  readonly opened: (record: RequestRecord) => void;
  readonly tunnelRefused: (status: number) => void;
  readonly sessionFailed: () => void;
  readonly accessLogDropped: (lines: number) => void;
  readonly certificateFailed: () => void;
  readonly xds: SubscriptionMetrics;
  /** Prometheus text. */
  readonly text: () => Promise<string>;
  readonly contentType: string;
  readonly close: () => void;
}

/** Metrics of their own; closed by whoever made them. */
export function createMetrics(version: string, sources: GaugeSources): WaypointMetrics {
  const requests = new RequestSeries();
  const routes = new CounterFamily(
    'tulle_waypoint_route_requests_total',
    'Requests and TCP connections by route, rule and backend.',
    ['route', 'rule', 'backend'],
  );
  const retries = new CounterFamily('tulle_waypoint_retries_total', 'Tries after the first.', ['route']);
  const retried = new CounterFamily(
    'tulle_waypoint_retries_success_total',
    'Requests that were answered without an error after a retry.',
    ['route'],
  );
  const skipped = new CounterFamily(
    'tulle_waypoint_retries_skipped_total',
    'Tries that failed and were not repeated: none left, over the budget, body too large, not safe.',
    ['route', 'reason'],
  );
  const faults = new CounterFamily('tulle_waypoint_faults_total', 'Faults that were injected.', [
    'fault',
    'kind',
  ]);
  const refused = new CounterFamily('tulle_waypoint_tunnels_refused_total', 'CONNECTs that led nowhere.', [
    'status',
  ]);
  const failed = new CounterFamily(
    'tulle_waypoint_sessions_failed_total',
    'Connections that came to nothing.',
  );
  const dropped = new CounterFamily(
    'tulle_access_log_dropped_total',
    'Access log lines that were not written.',
  );
  const certificates = new CounterFamily(
    'tulle_certificate_failures_total',
    'Requests for certificates that failed and are tried again.',
  );
  const messages = new CounterFamily('istio_xds_message_total', 'Messages received.', ['url']);
  const messageBytes = new CounterFamily('istio_xds_message_bytes_total', 'Bytes received.', ['url']);
  const terminations = new CounterFamily(
    'istio_xds_connection_terminations_total',
    'Connections to the control plane that ended.',
    ['reason'],
  );
  const families = [
    ...[routes, retries, retried, skipped, faults, refused, failed],
    ...[dropped, certificates, messages, messageBytes, terminations],
  ];
  const delay = monitorEventLoopDelay({ resolution: 20 });
  delay.enable();
  return {
    record: (record) => {
      requests.add(record);
      countRoute(record, { routes, retries, retried, skipped, faults });
    },
    opened: (record) => requests.open(record),
    tunnelRefused: (status) => refused.add([String(status)]),
    sessionFailed: () => failed.add(),
    accessLogDropped: (lines) => dropped.add([], lines),
    certificateFailed: () => certificates.add(),
    xds: {
      onMessage: (url, bytes) => {
        messages.add([url]);
        messageBytes.add([url], bytes);
      },
      onTermination: (reason) => terminations.add([reason]),
    },
    text: async () => {
      const loopSeconds = delay.max / 1e9;
      delay.reset();
      return [
        await requests.text(),
        ...families.map((family) => family.text()),
        gauges(sources),
        processText(version, loopSeconds),
      ].join('');
    },
    contentType: 'text/plain; version=0.0.4; charset=utf-8',
    close: () => delay.disable(),
  };
}

interface RouteFamilies {
  readonly routes: CounterFamily;
  readonly retries: CounterFamily;
  readonly retried: CounterFamily;
  readonly skipped: CounterFamily;
  readonly faults: CounterFamily;
}

function countRoute(record: RequestRecord, families: RouteFamilies): void {
  const { origin, attempts, flags } = record;
  const route = origin?.object ?? '';
  const backend = record.backend === '' ? nameOfAbsent(record.cluster) : record.backend;
  if (origin !== undefined && backend !== '') families.routes.add([route, String(origin.rule), backend]);
  if (attempts > 1) {
    families.retries.add([route], attempts - 1);
    if (record.status > 0 && record.status < 500 && !flags.includes('URX')) families.retried.add([route]);
  }
  if (record.retrySkipped !== undefined) families.skipped.add([route, record.retrySkipped]);
  for (const fault of record.faults) {
    const kinds = [...(flags.includes('DI') ? ['delay'] : []), ...(flags.includes('FI') ? ['abort'] : [])];
    families.faults.add([fault, kinds.join('+') || 'rate']);
  }
}

function gauges({ sessions, tunnels, upstream, mirrors, xds, memory, handedOver }: GaugeSources): string {
  const counts = xds();
  const { heldBytes, budgetBytes, shedCount } = memory();
  const { active, sent, dropped } = mirrors();
  return [
    gaugeText('tulle_waypoint_sessions', 'HBONE sessions of callers.', [{ value: sessions() }]),
    gaugeText('tulle_waypoint_held_bytes', 'Memory that callers have something waiting in.', [
      { value: heldBytes },
    ]),
    gaugeText('tulle_waypoint_held_bytes_max', 'The budget for that.', [{ value: budgetBytes }]),
    counterText(
      'tulle_waypoint_shed_total',
      'Requests, tunnels and sessions that were ended for the budget.',
      [{ value: shedCount }],
    ),
    counterText(
      'tulle_connections_handed_over_total',
      'Tunnels that a restart met, of this waypoint or of a ztunnel at one of its ends.',
      [...handedOver()].map(([key, value]) => {
        const [kind = '', outcome = ''] = key.split(' ');
        return { labels: [['kind', kind] as const, ['outcome', outcome] as const], value };
      }),
    ),
    gaugeText('tulle_waypoint_tunnels', 'Tunnels that are open.', [{ value: tunnels() }]),
    gaugeText(
      'tulle_waypoint_upstream_connections',
      'Connections to applications.',
      Object.entries(upstream()).map(([kind, value]) => ({ labels: [['kind', kind]], value })),
    ),
    gaugeText('tulle_waypoint_mirrors_active', 'Mirrored requests under way.', [{ value: active }]),
    counterText('tulle_waypoint_mirrors_total', 'Mirrored requests.', [
      { labels: [['outcome', 'sent']], value: sent },
      { labels: [['outcome', 'dropped']], value: dropped },
    ]),
    gaugeText(
      'tulle_waypoint_resources',
      'Resources in force.',
      counts.map(({ type, held }) => ({ labels: [['url', type]], value: held })),
    ),
    gaugeText(
      'tulle_waypoint_resources_rejected',
      'Resources whose newest version was refused.',
      counts.map(({ type, rejected }) => ({ labels: [['url', type]], value: rejected.size })),
    ),
  ].join('');
}

function processText(version: string, loopSeconds: number): string {
  const { user, system } = process.cpuUsage();
  const build = [['component', 'waypoint'] as const, ['tag', version] as const];
  return [
    gaugeText('istio_build', 'Build.', [{ labels: build, value: 1 }]),
    gaugeText('process_resident_memory_bytes', 'Memory.', [{ value: process.memoryUsage.rss() }]),
    counterText('process_cpu_seconds_total', 'CPU time.', [{ value: (user + system) / 1e6 }]),
    gaugeText('process_open_fds', 'Open file descriptors.', [{ value: readdirSync('/proc/self/fd').length }]),
    gaugeText('nodejs_eventloop_lag_max_seconds', 'Longest wait of the event loop since the last look.', [
      { value: Number.isFinite(loopSeconds) ? loopSeconds : 0 },
    ]),
  ].join('');
}
