import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from '#api/resource.ts';
import type { AccessRecord } from './access-log.ts';
import { createMetrics, type ZtunnelMetrics } from './metrics.ts';

const STOCK = readFileSync(join(import.meta.dirname, '../test/fixtures/ztunnel/metrics.txt'), 'utf8');

function metrics(): ZtunnelMetrics {
  return createMetrics({
    version: 'unknown',
    podCounts: () => ({ active: 1, pending: 0 }),
    missingPolicies: () => 2,
    memory: { budgetBytes: 1_000, usedBytes: () => 10 },
  });
}

/** A connection from `c` to `s` by its service, as the far end's ztunnel sees it. */
function record(fields: Partial<AccessRecord> = {}): AccessRecord {
  const peer = (name: string, address: string) => ({
    address,
    identity: `spiffe://cluster.local/ns/default/sa/${name}`,
    workload: {
      name,
      namespace: 'default',
      workloadName: '',
      canonicalName: name,
      canonicalRevision: '',
      cluster: 'Kubernetes',
      region: '',
      zone: '',
    },
  });
  return {
    event: 'opened',
    atMs: 0,
    direction: 'inbound',
    source: peer('c', '10.98.1.5:41058'),
    destination: peer('s', '10.98.2.5:15008'),
    service: { hostname: 's.default.svc.cluster.local', name: 's', namespace: 'default' },
    security: 'mutual_tls',
    receivedBytes: 0,
    sentBytes: 0,
    totalReceivedBytes: 0,
    totalSentBytes: 0,
    durationMs: 0,
    flags: '-',
    ...fields,
  };
}

/** Everything that the recording has, used once. */
async function usedMetrics(): Promise<string> {
  const used = metrics();
  used.records(0, [
    record(),
    record(),
    record({ event: 'progress', receivedBytes: 10, sentBytes: 20 }),
    record({ event: 'closed', receivedBytes: 1, sentBytes: 2 }),
    record({ event: 'failed', flags: 'CONNECT' }),
  ]);
  used.xds.onMessage(ADDRESS_TYPE, 515);
  used.xds.onMessage(AUTHORIZATION_TYPE, 0);
  used.podStarted();
  return used.text();
}

const familiesOf = (text: string) => [...text.matchAll(/^# (HELP|TYPE|UNIT) .*$/gm)].map(([line]) => line);
const seriesOf = (text: string) => text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
const labelNamesOf = (line: string) => [...line.matchAll(/([a-z_]+)="/g)].map(([, name]) => name).join();

test('every family of a stock ztunnel is there, with its type, unit and help', async () => {
  expect(familiesOf(await usedMetrics())).toEqual(expect.arrayContaining(familiesOf(STOCK)));
});

test('every series of a stock ztunnel is there, with its labels in the same order', async () => {
  const shape = (text: string) =>
    seriesOf(text).map((line) => `${line.split(/[{ ]/)[0]} ${labelNamesOf(line)}`);
  expect(shape(await usedMetrics())).toEqual(expect.arrayContaining([...new Set(shape(STOCK))]));
});

test('the text ends as OpenMetrics wants it and says so', async () => {
  const text = await usedMetrics();
  expect(text.endsWith('\n# EOF\n')).toBe(true);
  expect(metrics().contentType).toContain('application/openmetrics-text');
});

test('families of our own have our prefix', async () => {
  const own = familiesOf(await usedMetrics()).filter(
    (line) => !/ (istio|workload_manager|process)_/.test(line),
  );
  expect(own.every((line) => line.includes(' tulle_'))).toBe(true);
});

async function metricValue(
  used: ZtunnelMetrics,
  name: string,
  ...labels: readonly string[]
): Promise<string | undefined> {
  const line = seriesOf(await used.text()).find(
    (each) => each.startsWith(name) && labels.every((label) => each.includes(label)),
  );
  return line?.split(' ').at(-1);
}

test('a connection with one record for its opening and its end has opened and closed, and is not open', async () => {
  const used = metrics();
  used.records(0, [record(), record({ event: 'closed', includesOpening: true })]);
  expect(await metricValue(used, 'istio_tcp_connections_opened_total')).toBe('2');
  expect(await metricValue(used, 'istio_tcp_connections_closed_total')).toBe('1');
  expect(await metricValue(used, 'istio_tcp_sockets_open')).toBe('1');
});

test('bytes are added up over a connection’s life, also while it lives', async () => {
  const used = metrics();
  used.records(0, [record(), record({ event: 'progress', receivedBytes: 5, sentBytes: 7 })]);
  expect(await metricValue(used, 'istio_tcp_received_bytes_total')).toBe('5');
  used.records(1, [record({ event: 'closed', receivedBytes: 1, sentBytes: 0 })]);
  expect(await metricValue(used, 'istio_tcp_received_bytes_total')).toBe('6');
  expect(await metricValue(used, 'istio_tcp_sent_bytes_total')).toBe('7');
});

test('a connection that was opened and could not be established is closed and failed under its flags', async () => {
  const used = metrics();
  used.records(0, [record(), record({ event: 'closed', flags: 'CONNECT' })]);
  expect(await metricValue(used, 'istio_tcp_connections_opened_total', 'response_flags="-"')).toBe('1');
  expect(await metricValue(used, 'istio_tcp_connections_closed_total', 'response_flags="CONNECT"')).toBe('1');
  expect(await metricValue(used, 'istio_tcp_connections_failed_total', 'response_flags="CONNECT"')).toBe('1');
});

test('open sockets go down with connections that end and with workers that are gone', async () => {
  const used = metrics();
  used.records(0, [record(), record()]);
  used.records(1, [record(), record({ event: 'closed' })]);
  expect(await metricValue(used, 'istio_tcp_sockets_open')).toBe('2');
  used.workerEnded(0, true);
  expect(await metricValue(used, 'istio_tcp_sockets_open')).toBe('0');
  expect(await metricValue(used, 'tulle_worker_crashes_total')).toBe('1');
});

test('what a client says of itself is told apart so often, and beyond that is one', async () => {
  const used = metrics();
  const named = (index: number): AccessRecord => {
    const { source, ...others } = record({ event: 'closed', includesOpening: true });
    const workload = source.workload && { ...source.workload, workloadName: `pod-${index}` };
    return { ...others, source: { ...source, ...(workload && { workload }) } };
  };
  used.records(
    0,
    Array.from({ length: 2_500 }, (_, index) => named(index)),
  );
  const other = ['source_workload="other"', 'destination_workload="other"', 'reporter="destination"'];
  expect(await metricValue(used, 'istio_tcp_connections_opened_total', ...other)).toBe('500');
  expect(await metricValue(used, 'istio_tcp_connections_opened_total', 'source_workload="pod-7"')).toBe('1');
});

test('what is not known is labelled unknown', async () => {
  const used = metrics();
  used.records(0, [
    record({ direction: 'outbound', destination: { address: '192.0.2.1:443' }, security: 'unknown' }),
  ]);
  const labels = ['reporter="source"', 'destination_workload="unknown"', 'destination_principal="unknown"'];
  expect(await metricValue(used, 'istio_tcp_connections_opened_total', ...labels)).toBe('1');
});

test('verdicts and refusals are counted by reason', async () => {
  const used = metrics();
  used.records(0, [
    record({ event: 'closed', flags: 'DENY', reason: 'denied-by-policy' }),
    record({ event: 'closed', reason: 'no-allow-policy' }),
    record({ event: 'failed', direction: 'outbound', flags: 'CONNECT', reason: 'no-healthy-endpoint' }),
  ]);
  expect(await metricValue(used, 'tulle_policy_verdicts_total', 'deny', 'denied-by-policy')).toBe('1');
  expect(await metricValue(used, 'tulle_policy_verdicts_total', 'allow', 'no-allow-policy')).toBe('1');
  expect(await metricValue(used, 'tulle_connections_refused_total', 'source', 'no-healthy-endpoint')).toBe(
    '1',
  );
});

test('a connection on the node counts for both ends, each under the service that it knows', async () => {
  const used = metrics();
  const impliedService = { hostname: 'echo.shop.svc', name: 'echo', namespace: 'shop' };
  const { service: _none, ...unaddressed } = record({ direction: 'outbound', security: 'same_node' });
  const near: AccessRecord = { ...unaddressed, impliedService };
  used.records(0, [
    near,
    { ...near, event: 'closed', receivedBytes: 3, reason: 'no-allow-policy' },
    { ...near, event: 'closed', includesOpening: true, flags: 'DENY', reason: 'denied-by-policy' },
  ]);
  const source = ['reporter="source"', 'connection_security_policy="same_node"', 'service_name="unknown"'];
  const destination = [
    'reporter="destination"',
    'connection_security_policy="same_node"',
    'destination_service_name="echo"',
  ];
  for (const labels of [source, destination]) {
    const value = (name: string, ...more: string[]) => metricValue(used, name, ...labels, ...more);
    expect(await value('istio_tcp_connections_opened_total')).toBe('2');
    expect(await value('istio_tcp_connections_closed_total', 'response_flags="-"')).toBe('1');
    expect(await value('istio_tcp_connections_closed_total', 'response_flags="DENY"')).toBe('1');
    expect(await value('istio_tcp_received_bytes_total')).toBe('3');
  }
  expect(await metricValue(used, 'istio_tcp_sockets_open', 'source')).toBe('0');
  expect(await metricValue(used, 'istio_tcp_sockets_open', 'destination')).toBe('0');
  expect(await metricValue(used, 'tulle_policy_verdicts_total', 'deny', 'denied-by-policy')).toBe('1');
});

test('DNS queries are counted by type and protocol, those that went upstream with their time', async () => {
  const used = metrics();
  const query = { name: 'x', type: 'A', protocol: 'udp', clientIp: '10.0.0.1', durationMs: 20 } as const;
  const client = { name: 'web', revision: '' };
  used.dnsQuery({ ...query, outcome: 'answered' }, client);
  used.dnsQuery({ ...query, outcome: 'forwarded' }, client);
  used.dnsQuery({ ...query, outcome: 'forward-failed' }, client);
  const labels = ['request_query_type="A"', 'request_protocol="udp"', 'source_canonical_service="web"'];
  expect(await metricValue(used, 'istio_dns_requests_total', ...labels)).toBe('3');
  expect(await metricValue(used, 'istio_dns_upstream_requests_total', ...labels)).toBe('2');
  expect(await metricValue(used, 'istio_dns_upstream_failures_total', ...labels)).toBe('1');
  expect(await metricValue(used, 'istio_dns_upstream_request_duration_seconds_bucket', 'le="0.1"')).toBe('1');
});
