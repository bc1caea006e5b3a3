import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { eventually } from '#test/kit/eventually.ts';
import type { AccessRecord } from './access-log.ts';
import { formatAccessRecord } from './access-log-format.ts';
import { createAccessLogWriter } from './access-log-writer.ts';

const labels = (name: string) => ({
  name,
  namespace: 'default',
  workloadName: name,
  canonicalName: name,
  canonicalRevision: 'latest',
  cluster: 'Kubernetes',
  region: '',
  zone: '',
});

/** The first line of the recorded log of a stock ztunnel, as a record. */
function record(fields: Partial<AccessRecord> = {}): AccessRecord {
  return {
    event: 'closed',
    atMs: Date.parse('2026-11-21T09:33:52.610Z'),
    direction: 'outbound',
    source: {
      address: '10.98.1.5:41058',
      workload: labels('c'),
      identity: 'spiffe://cluster.local/ns/default/sa/c',
    },
    destination: {
      address: '10.98.2.5:15008',
      workload: labels('s'),
      identity: 'spiffe://cluster.local/ns/default/sa/s',
    },
    hboneAddress: '10.98.2.5:8080',
    security: 'mutual_tls',
    receivedBytes: 0,
    sentBytes: 0,
    totalReceivedBytes: 78,
    totalSentBytes: 2342,
    durationMs: 4.7,
    flags: '-',
    ...fields,
  };
}

function line(fields: Partial<AccessRecord> = {}): Record<string, unknown> {
  return JSON.parse(formatAccessRecord(record(fields)) ?? 'null');
}

/** `key=value` pairs of a recorded line, in order. */
function recorded(text: string): readonly (readonly [string, unknown])[] {
  return [...text.matchAll(/([a-z_.]+)=("[^"]*"|\S+)/g)].map(([, key = '', value = '']) => {
    if (value.startsWith('"')) return [key, value.slice(1, -1)] as const;
    return [key, /^\d+$/.test(value) ? Number(value) : value] as const;
  });
}

test('a complete connection has a stock ztunnel’s fields, in its order', () => {
  const stock =
    'src.addr=10.98.1.5:41058 src.workload="c" src.namespace="default" src.identity="spiffe://cluster.local/ns/default/sa/c" src.cluster="Kubernetes" dst.addr=10.98.2.5:15008 dst.hbone_addr=10.98.2.5:8080 dst.workload="s" dst.namespace="default" dst.identity="spiffe://cluster.local/ns/default/sa/s" dst.cluster="Kubernetes" direction="outbound" bytes_sent=78 bytes_recv=2342 duration="5ms"';
  expect(Object.entries(line())).toEqual([
    ['level', 'info'],
    ['time', '2026-11-21T09:33:52.610Z'],
    ['scope', 'access'],
    ['message', 'connection complete'],
    ...recorded(stock),
  ]);
});

test('inbound, the bytes sent are those towards the client', () => {
  expect(line({ direction: 'inbound' })).toMatchObject({ bytes_sent: 2342, bytes_recv: 78 });
});

test('a service is named after its hostname', () => {
  const service = { hostname: 's.default.svc.cluster.local', name: 's', namespace: 'default' };
  expect(line({ service })['dst.service']).toBe('s.default.svc.cluster.local');
});

test('one that stayed on the node says so, and names the service that the destination counts it for', () => {
  const service = { hostname: 's.default.svc.cluster.local', name: 's', namespace: 'default' };
  expect(line({ security: 'same_node', impliedService: service })).toMatchObject({
    direction: 'outbound',
    hop: 'same-node',
    'dst.service': 's.default.svc.cluster.local',
  });
  expect(line()).not.toHaveProperty('hop');
});

test('a connection that ended badly is an error and says why, by which policy, with which flags', () => {
  const fields = { error: 'denied', flags: 'DENY', policy: 'default/p', reason: 'denied-by-policy' } as const;
  expect(line({ ...fields, connectionId: 'ab', dryRun: 'default/q would deny' })).toMatchObject({
    level: 'error',
    message: 'connection complete',
    error: 'denied',
    response_flags: 'DENY',
    policy: 'default/p',
    reason: 'denied-by-policy',
    dry_run: 'default/q would deny',
    connection_id: 'ab',
  });
});

test('a connection that never came to be is a warning without bytes and duration', () => {
  const failed = line({
    event: 'failed',
    source: { address: '10.98.1.5:34042' },
    destination: { address: '10.96.0.10:81' },
    error: 'no healthy upstream: 10.96.0.10:81',
  });
  expect(failed).toEqual({
    level: 'warn',
    time: '2026-11-21T09:33:52.610Z',
    scope: 'access',
    message: 'connection failed',
    'src.addr': '10.98.1.5:34042',
    'dst.addr': '10.96.0.10:81',
    'dst.hbone_addr': '10.98.2.5:8080',
    direction: 'outbound',
    error: 'no healthy upstream: 10.96.0.10:81',
  });
});

test.each(['opened', 'progress'] as const)('%s is for metrics, not for the log', (event) => {
  expect(formatAccessRecord(record({ event }))).toBe(undefined);
});

function openLog(maxWaiting?: number) {
  const folder = mkdtempSync(join(tmpdir(), 'access-log-'));
  const path = join(folder, 'access.jsonl');
  const dropped: [number, string][] = [];
  const onDropped = (lines: number, reason: string): void => {
    dropped.push([lines, reason]);
  };
  const options = maxWaiting === undefined ? { path, onDropped } : { path, onDropped, maxWaiting };
  const log = createAccessLogWriter(options);
  return { path, dropped, log, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
}

test('lines are appended in order to a file that only its owner reads', async () => {
  using opened = openLog();
  const { path, log } = opened;
  log.write(['a', 'b']);
  log.write(['c']);
  await log.close();
  expect(readFileSync(path, 'utf8')).toBe('a\nb\nc\n');
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

test('a file that was moved away is followed by a new one after reopening', async () => {
  using opened = openLog();
  const { path, log } = opened;
  log.write(['old']);
  await eventually('the first line', () => readFileSync(path, 'utf8') === 'old\n');
  renameSync(path, `${path}.1`);
  log.reopen();
  log.write(['new']);
  await log.close();
  expect(readFileSync(`${path}.1`, 'utf8')).toBe('old\n');
  expect(readFileSync(path, 'utf8')).toBe('new\n');
});

test('what exceeds the room while the disk is busy is dropped and counted', async () => {
  using opened = openLog(3);
  const { path, log, dropped } = opened;
  log.write(['1st']);
  log.write(['long enough']);
  log.write(['dropped', 'too']);
  await log.close();
  expect(dropped).toEqual([[2, 'the disk is too slow']]);
  expect(readFileSync(path, 'utf8')).toBe('1st\nlong enough\n');
});

test('a file that cannot be written costs its lines and nothing else', async () => {
  using opened = openLog();
  const { path, log, dropped } = opened;
  mkdirSync(path);
  log.write(['lost']);
  await eventually('the loss', () => dropped.length > 0);
  expect(dropped[0]?.[1]).toContain('EISDIR');
  await log.close();
});
