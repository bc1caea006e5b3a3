import { type OpenMetricsContentType, Registry } from 'prom-client';
import type { SubscriptionMetrics } from '#api/delta-client.ts';
import type { AccessRecord } from './access-log.ts';
import {
  type DnsQueryObserver,
  type MemoryFigures,
  type MetricRegistry,
  type PodCounts,
  type PodMetrics,
  registerDns,
  registerMemory,
  registerOwn,
  registerPods,
  registerProcess,
  registerTraffic,
  registerXds,
} from './metric-families.ts';
import type { Shortage } from './shedding.ts';
import { TrafficTotals } from './traffic-series.ts';

export interface MetricsOptions {
  /** `istio_build`'s tag. */
  readonly version: string;
  /** Asked when metrics are read. */
  readonly podCounts: () => PodCounts;
  /** Policies that local workloads name and nobody has sent; asked when metrics are read. */
  readonly missingPolicies: () => number;
  /** For bytes that wait. */
  readonly memory: MemoryFigures;
}

/** The metrics of one ztunnel: the field's names and labels, ours with the prefix `tulle_`. */
export interface ZtunnelMetrics extends PodMetrics {
  readonly records: (worker: number, records: readonly AccessRecord[]) => void;
  /** A worker is gone, as planned or (`crashed`) not. */
  readonly workerEnded: (worker: number, crashed: boolean) => void;
  readonly dnsQuery: DnsQueryObserver;
  readonly xds: SubscriptionMetrics;
  /** What became of a connection when this ztunnel, or the one before it, was replaced. */
  readonly handedOver: (kind: string, outcome: string) => void;
  readonly accessLogDropped: (lines: number) => void;
  readonly certificateFailed: () => void;
  /** So many connections were refused or given up for want of something. */
  readonly shed: (shortage: Shortage, count: number) => void;
  /** OpenMetrics text. */
  readonly text: () => Promise<string>;
  readonly contentType: string;
}

/** Metrics whose unit OpenMetrics wants said, as the field says it. */
const UNITS: ReadonlyMap<string, string> = new Map([
  ['istio_xds_message_bytes', 'bytes'],
  ['istio_dns_upstream_request_duration_seconds', 'seconds'],
]);

/** Metrics with a registry of their own. */
export function createMetrics(options: MetricsOptions): ZtunnelMetrics {
  const registry: MetricRegistry = new Registry<OpenMetricsContentType>();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  registerProcess(registry, options.version);
  const xds = registerXds(registry);
  const traffic = new TrafficTotals();
  registerTraffic(registry, traffic);
  const pods = registerPods(registry, options.podCounts);
  const dnsQuery = registerDns(registry);
  const own = registerOwn(registry, options.missingPolicies);
  registerMemory(registry, options.memory);
  return {
    records: (worker, records) => {
      traffic.add(worker, records);
      for (const record of records) own.decision(record);
    },
    workerEnded: (worker, crashed) => {
      traffic.forgetWorker(worker);
      if (crashed) own.workerCrashed();
    },
    dnsQuery,
    xds,
    ...pods,
    handedOver: own.handedOver,
    accessLogDropped: own.accessLogDropped,
    certificateFailed: own.certificateFailed,
    shed: own.shed,
    text: async () => withUnits(await registry.metrics()),
    contentType: registry.contentType,
  };
}

function withUnits(text: string): string {
  return text.replace(/^# TYPE (\S+) .*$/gm, (line, name: string) => {
    const unit = UNITS.get(name);
    return unit === undefined ? line : `${line}\n# UNIT ${name} ${unit}`;
  });
}
