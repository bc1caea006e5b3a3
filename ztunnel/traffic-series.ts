import type { AccessRecord, Peer } from './access-log.ts';

/** The labels of traffic metrics, in the field's order: fact sheet ambient-wire.md, 8. */
export const TRAFFIC_LABELS: readonly string[] = [
  'reporter',
  ...['workload', 'canonical_service', 'canonical_revision', 'workload_namespace'].map(
    (name) => `source_${name}`,
  ),
  ...['principal', 'app', 'version', 'cluster'].map((name) => `source_${name}`),
  ...['service', 'service_namespace', 'service_name'].map((name) => `destination_${name}`),
  ...['workload', 'canonical_service', 'canonical_revision', 'workload_namespace'].map(
    (name) => `destination_${name}`,
  ),
  ...['principal', 'app', 'version', 'cluster'].map((name) => `destination_${name}`),
  ...['request_protocol', 'response_flags', 'connection_security_policy'],
  ...['source_region', 'source_zone', 'destination_region', 'destination_zone'],
];

/** Label values in the order of {@link TRAFFIC_LABELS}, and counts that only grow. */
export interface TrafficSeries {
  readonly values: readonly string[];
  opened: number;
  closed: number;
  failed: number;
  receivedBytes: number;
  sentBytes: number;
}

export type TrafficCount = Exclude<keyof TrafficSeries, 'values'>;

/**
 * Counts of connections and bytes by their labels. Records come by the thousand, so they are added up here, and turned
 * into metrics only when somebody asks for those.
 */
export class TrafficTotals {
  readonly #series = new Map<string, TrafficSeries>();
  /** How many of them each source has, by its identity. */
  readonly #bySource = new Map<string, number>();
  /** Open connections by worker, then reporter. */
  readonly #open = new Map<number, Map<string, number>>();

  /** Adds a worker's records. */
  add(worker: number, records: readonly AccessRecord[]): void {
    for (const record of records) this.#addOne(worker, record);
  }

  /** The worker is gone, and its connections with it. */
  forgetWorker(worker: number): void {
    this.#open.delete(worker);
  }

  series(): Iterable<TrafficSeries> {
    return this.#series.values();
  }

  /** Open connections by reporter, one that ever had any also when it has none. */
  open(): ReadonlyMap<string, number> {
    const totals = new Map<string, number>();
    for (const byReporter of this.#open.values()) {
      for (const [reporter, count] of byReporter) totals.set(reporter, (totals.get(reporter) ?? 0) + count);
    }
    return totals;
  }

  #addOne(worker: number, record: AccessRecord): void {
    for (const reporter of reportersOf(record)) this.#count(worker, record, reporter);
  }

  /** A connection is opened, and its bytes counted, before it is known how it ends: without flags. */
  #count(worker: number, record: AccessRecord, reporter: Reporter): void {
    const plain = this.#seriesOf(record, reporter, '-');
    plain.receivedBytes += record.receivedBytes;
    plain.sentBytes += record.sentBytes;
    switch (record.event) {
      case 'opened':
        plain.opened += 1;
        this.#countOpen(worker, reporter, 1);
        break;
      case 'progress':
        break;
      case 'joined':
        this.#countOpen(worker, reporter, 1);
        break;
      case 'left':
        this.#countOpen(worker, reporter, -1);
        break;
      case 'closed':
        if (record.includesOpening === true) plain.opened += 1;
        else this.#countOpen(worker, reporter, -1);
        this.#seriesOf(record, reporter, record.flags).closed += 1;
        if (record.flags !== '-') this.#seriesOf(record, reporter, record.flags).failed += 1;
        break;
      case 'failed':
        this.#seriesOf(record, reporter, record.flags).failed += 1;
    }
  }

  #countOpen(worker: number, reporter: Reporter, change: 1 | -1): void {
    const counts = this.#open.get(worker) ?? new Map<string, number>();
    counts.set(reporter, Math.max(0, (counts.get(reporter) ?? 0) + change));
    this.#open.set(worker, counts);
  }

  /** Counts it for the source. */
  #mayAdd({ source }: AccessRecord): boolean {
    const who = known(source.identity);
    const count = this.#bySource.get(who) ?? 0;
    if (this.#series.size >= MOST_SERIES || count >= MOST_SERIES_OF_SOURCE) return false;
    this.#bySource.set(who, count + 1);
    return true;
  }

  /** Together with all others of its reporter, flags and security. */
  #otherSeries(record: AccessRecord, reporter: Reporter, flags: string): TrafficSeries {
    const values = TRAFFIC_LABELS.map((label) => {
      if (label === 'reporter') return reporter;
      if (label === 'request_protocol') return 'tcp';
      if (label === 'response_flags') return flags;
      return label === 'connection_security_policy' ? record.security : OTHER;
    });
    const key = values.join('\n');
    const series = this.#series.get(key) ?? newSeries(values);
    this.#series.set(key, series);
    return series;
  }

  #seriesOf(record: AccessRecord, reporter: Reporter, flags: string): TrafficSeries {
    const values = labelValues(record, reporter, flags);
    const key = values.join('\n');
    const known = this.#series.get(key);
    if (known !== undefined) return known;
    if (!this.#mayAdd(record)) return this.#otherSeries(record, reporter, flags);
    const series = newSeries(values);
    this.#series.set(key, series);
    return series;
  }
}

/** Sets of labels that are told apart: in all, and with one source. What a source says of itself is in them. */
const MOST_SERIES = 20_000;
const MOST_SERIES_OF_SOURCE = 2_000;
/** What stands for all labels but a few of those beyond. */
const OTHER = 'other';

/** An end of a connection, as it reports. */
export type Reporter = 'source' | 'destination';

/** The ends that a record is of: the source for outbound connections, both for one that does not leave the node. */
export function reportersOf({ direction, security }: AccessRecord): readonly Reporter[] {
  if (security === 'same_node') return BOTH;
  return direction === 'outbound' ? SOURCE : DESTINATION;
}

const SOURCE: readonly Reporter[] = ['source'];
const DESTINATION: readonly Reporter[] = ['destination'];
const BOTH: readonly Reporter[] = ['source', 'destination'];

function newSeries(values: readonly string[]): TrafficSeries {
  return { values, opened: 0, closed: 0, failed: 0, receivedBytes: 0, sentBytes: 0 };
}

function labelValues(record: AccessRecord, reporter: Reporter, flags: string): readonly string[] {
  const { source, destination } = record;
  const service = record.service ?? (reporter === 'destination' ? record.impliedService : undefined);
  return [
    reporter,
    ...peerValues(source),
    known(service?.hostname),
    known(service?.namespace),
    known(service?.name),
    ...peerValues(destination),
    'tcp',
    flags,
    record.security,
    known(source.workload?.region),
    known(source.workload?.zone),
    known(destination.workload?.region),
    known(destination.workload?.zone),
  ];
}

function peerValues({ workload, identity }: Peer): readonly string[] {
  const service = known(workload?.canonicalName);
  const revision = known(workload?.canonicalRevision);
  return [
    ...[known(workload?.workloadName), service, revision, known(workload?.namespace)],
    ...[known(identity), service, revision, known(workload?.cluster)],
  ];
}

function known(value: string | undefined): string {
  return value === undefined || value === '' ? 'unknown' : value;
}
