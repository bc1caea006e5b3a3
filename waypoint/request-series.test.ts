import { expect, test } from 'vitest';
import { CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE } from '#api/envoy/types.ts';
import { parseIdentity } from '#certs/identity.ts';
import { formatRequestRecord } from './access-log.ts';
import { createConfigStore } from './config/store.ts';
import { clusterBytes, LEDGER, listenerBytes, routesBytes, routeTo, updateOf } from './config/testing.ts';
import { CounterFamily, Distribution } from './metric-text.ts';
import type { RequestRecord } from './request-record.ts';
import { RequestSeries } from './request-series.ts';
import { RouteCounts } from './route-counts.ts';

/** What is written and counted of requests: the access log's lines, Istio's metrics, and the splits of routes. */

function record(fields: Partial<RequestRecord> = {}): RequestRecord {
  return {
    startMs: Date.UTC(2026, 0, 2, 3, 4, 5, 6),
    durationMs: 12.4,
    caller: {
      identity: parseIdentity('spiffe://cluster.local/ns/shop/sa/web'),
      address: { ip: '10.244.1.2', port: 40_000 },
      baggage: { namespace: 'shop', workloadName: 'web' },
      traceparent: undefined,
      connectionId: undefined,
    },
    frontend: {
      name: LEDGER,
      service: 'pay/ledger.pay.svc.cluster.local',
      port: 80,
      authorizations: [],
      protocol: 'http',
      tcp: [],
    },
    destination: '10.96.0.1:80',
    protocol: 'HTTP/1.1',
    request: {
      method: 'GET',
      authority: 'ledger',
      path: '/',
      id: 'id',
      userAgent: '',
      traceparent: '',
      isGrpc: false,
    },
    status: 200,
    flags: [],
    details: '',
    bytesReceived: 0,
    bytesSent: 3,
    route: '',
    origin: undefined,
    cluster: LEDGER,
    backend: 'pay/ledger:80',
    endpoint: undefined,
    attempts: 1,
    upstreamMs: 3,
    faults: [],
    ...fields,
  };
}

function lineOf(fields: Partial<RequestRecord>): Record<string, unknown> {
  const line = formatRequestRecord(record(fields));
  expect(line).not.toContain('\n');
  return JSON.parse(line) as Record<string, unknown>;
}

test('a line has the time, and leaves out what there is not', () => {
  const line = lineOf({});
  expect(line).toMatchObject({ start_time: '2026-01-02T03:04:05.006Z', duration: 12, response_flags: '-' });
  for (const absent of ['grpc_status', 'faults', 'route_name', 'user_agent', 'upstream_host'])
    expect(line).not.toHaveProperty(absent);
});

test.each(['a"b', 'a\\b', 'a\nb', 'a\u0000b', 'a\u2028b', 'ÿ\u0080', '","response_code":200,"x":"'])(
  'what a caller sends stays inside its field: %j',
  (text) => {
    const request = {
      method: text,
      authority: text,
      path: text,
      id: text,
      userAgent: text,
      traceparent: text,
    };
    expect(lineOf({ request: { ...request, isGrpc: false }, status: 403 })).toMatchObject({
      method: text,
      path: text,
      authority: text,
      user_agent: text,
      request_id: text,
      traceparent: text,
      response_code: 403,
    });
  },
);

test('faults, retries, rules and gRPC have their fields', () => {
  const origin = { object: 'HTTPRoute pay/ledger', rule: 1, ruleName: 'canary' };
  const fields: Partial<RequestRecord> = {
    route: 'HTTPRoute pay/ledger rule 1 match 0',
    origin,
    flags: ['DI', 'FI'],
    faults: ['slow', 'broken'],
    grpcStatus: 14,
    attempts: 3,
    retrySkipped: 'body-not-kept',
    details: 'fault injected',
  };
  expect(lineOf(fields)).toMatchObject({
    route_name: 'HTTPRoute pay/ledger rule 1 match 0',
    rule_name: 'canary',
    response_flags: 'DI,FI',
    faults: 'slow,broken',
    grpc_status: 14,
    attempts: 3,
    retry_skipped: 'body-not-kept',
    response_code_details: 'fault injected',
  });
});

test('equal requests are one series, whoever sent them first', async () => {
  const series = new RequestSeries();
  for (const status of [200, 200, 503]) series.add(record({ status }));
  const text = await series.text();
  expect(text).toMatch(/^istio_requests_total\{.*response_code="200".*\} 2$/m);
  expect(text).toMatch(/^istio_requests_total\{.*response_code="503".*\} 1$/m);
  expect(text).toMatch(/^istio_request_duration_milliseconds_bucket\{.*"200".*le="10"\} 0$/m);
  expect(text).toMatch(/^istio_request_duration_milliseconds_bucket\{.*"200".*le="25"\} 2$/m);
  expect(text).toMatch(/^istio_request_duration_milliseconds_sum\{.*"200".*\} 24.8$/m);
});

test('connections have their own metrics', async () => {
  const series = new RequestSeries();
  series.add(record({ protocol: 'TCP', status: 0, bytesReceived: 10, bytesSent: 20 }));
  series.open(record({ protocol: 'TCP', status: 0 }));
  series.open(record({ protocol: 'TCP', status: 0 }));
  const text = await series.text();
  expect(text).toMatch(/^istio_tcp_connections_opened_total\{.*\} 2$/m);
  expect(text).toMatch(/^istio_tcp_connections_closed_total\{.*\} 1$/m);
  expect(text).toMatch(/^istio_tcp_received_bytes_total\{.*request_protocol="tcp".*\} 10$/m);
  expect(text).toMatch(/^istio_tcp_sent_bytes_total\{.*\} 20$/m);
  expect(text).not.toMatch(/^istio_requests_total\{/m);
});

test('callers that call themselves something else each time do not fill the memory', async () => {
  const series = new RequestSeries();
  for (let number = 0; number < 3_000; number += 1) {
    const { caller } = record();
    series.add(record({ caller: { ...caller, baggage: { workloadName: `"\n${number}` } } }));
  }
  const text = await series.text();
  expect(text.match(/^istio_requests_total\{/gm)?.length).toBeLessThanOrEqual(1_002);
  expect(text).toMatch(/source_workload="other".*\} 2000$/m);
  expect(text).toContain('source_workload="\\"\\n1"');
});

test('a counter with too many label values counts the rest as other', () => {
  const family = new CounterFamily('x_total', 'X.', ['a'], 2);
  for (const value of ['1', '2', '3', '4', '1']) family.add([value]);
  expect(family.text()).toBe(
    '# HELP x_total X.\n# TYPE x_total counter\nx_total{a="1"} 2\nx_total{a="2"} 1\nx_total{a="other"} 2\n',
  );
});

test('a value beyond all buckets is counted all the same', () => {
  const distribution = new Distribution();
  distribution.observe(10_000_000);
  distribution.observe(0.5);
  expect(distribution.text('x', 'a="b"')).toMatch(
    /le="0.5"\} 1\n(.|\n)*le="3600000"\} 1\n.*le="\+Inf"\} 2\n/,
  );
});

const ORIGIN = { object: 'HTTPRoute pay/ledger', rule: 0 };

function configWith(weights: readonly [number, number], store = createConfigStore()): typeof store {
  const weighted = ['v1', 'v2'].map((name, at) => ({ name, weight: weights[at] ?? 0 }));
  const route = routeTo(LEDGER, {
    name: 'HTTPRoute pay/ledger rule 0 match 0',
    metadata: { filterMetadata: { 'tulle.dev': { ...ORIGIN } } },
    action: {
      case: 'route',
      value: {
        clusterSpecifier: { case: 'weightedClusters', value: { clusters: weighted } },
        timeout: { seconds: 0n },
      },
    },
  });
  const rejected = [
    updateOf(LISTENER_TYPE, LEDGER, listenerBytes(LEDGER)),
    updateOf(CLUSTER_TYPE, 'v1', clusterBytes('v1')),
    updateOf(ROUTE_TYPE, LEDGER, routesBytes(LEDGER, [route])),
  ].flatMap((update) => store.apply(update));
  expect(rejected).toEqual([]);
  return store;
}

test('splits are counted for as long as the weights stay the same', () => {
  const counts = new RouteCounts();
  const store = configWith([70, 30]);
  counts.follow(store.current());
  for (let sent = 0; sent < 7; sent += 1) counts.add(record({ origin: ORIGIN, cluster: 'v1' }));
  counts.add(record({ origin: ORIGIN, cluster: 'v2', backend: '' }));
  counts.add(record({ origin: { object: '', rule: 0 } }));
  const expected = [
    { ...ORIGIN, backend: 'pay/ledger:80', weight: 70, requests: 7 },
    { ...ORIGIN, backend: 'v2', weight: 30, requests: 1 },
  ];
  expect(counts.report()).toEqual(expected);
  counts.follow(configWith([70, 30], store).current());
  expect(counts.report()).toEqual(expected);
  counts.follow(configWith([50, 50], store).current());
  expect(counts.report().map(({ weight, requests }) => [weight, requests])).toEqual([
    [50, 0],
    [50, 0],
  ]);
});
