import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { IssuedLogError, type IssuedRecord, openIssuedLog } from './issued.ts';

const DAY = 24 * 3_600_000;
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';

function issued(change: Partial<IssuedRecord>): IssuedRecord {
  return {
    serial: '01',
    identity: WEB,
    node: 'n1',
    issuedMs: 1000,
    notBeforeMs: 0,
    notAfterMs: DAY,
    ...change,
  };
}

test('the newest certificate of each identity on each node is listed', async () => {
  await using folder = await temporaryFolder();
  const log = openIssuedLog(folder.file, () => 0);
  log.record(issued({ serial: '01' }));
  log.record(issued({ serial: '02', node: 'n2' }));
  log.record(issued({ serial: '03', identity: CART }));
  log.record(issued({ serial: '04' }));
  expect(log.latest().map(({ serial }) => serial)).toEqual(['03', '04', '02']);
  log.close();
});

test('a certificate is found by its serial number', async () => {
  await using folder = await temporaryFolder();
  const log = openIssuedLog(folder.file, () => 0);
  log.record(issued({ serial: '4a' }));
  expect(log.find('4a')).toEqual(issued({ serial: '4a' }));
  expect(log.find('4b')).toBeUndefined();
  log.close();
});

test('the end of the last certificate is known', async () => {
  await using folder = await temporaryFolder();
  const log = openIssuedLog(folder.file, () => 0);
  expect(log.lastEndMs()).toBe(0);
  log.record(issued({ serial: '01', notAfterMs: 3 * DAY }));
  log.record(issued({ serial: '02', notAfterMs: 2 * DAY }));
  expect(log.lastEndMs()).toBe(3 * DAY);
  log.close();
});

test('what was recorded is there when the log is opened again, for its owner only', async () => {
  await using folder = await temporaryFolder();
  const first = openIssuedLog(folder.file, () => 0);
  first.record(issued({}));
  first.close();
  const second = openIssuedLog(folder.file, () => 0);
  expect(second.latest()).toEqual([issued({})]);
  expect((await stat(folder.file)).mode & 0o777).toBe(0o600);
  second.close();
});

test('a certificate is forgotten 30 days after its end', async () => {
  await using folder = await temporaryFolder();
  const first = openIssuedLog(folder.file, () => 0);
  first.record(issued({}));
  first.close();
  for (const [nowMs, count] of [
    [31 * DAY, 1],
    [31 * DAY + 1, 0],
  ] as const) {
    const log = openIssuedLog(folder.file, () => nowMs);
    expect(log.latest()).toHaveLength(count);
    log.close();
  }
});

test('a file that is no database is refused, by name', async () => {
  await using folder = await temporaryFolder();
  await writeFile(folder.file, 'certificates, mostly'.repeat(100));
  expect(() => openIssuedLog(folder.file)).toThrow(IssuedLogError);
  expect(() => openIssuedLog(folder.file)).toThrow(folder.file);
});

async function temporaryFolder(): Promise<AsyncDisposable & { readonly file: string }> {
  const path = await mkdtemp(join(tmpdir(), 'tulle-issued-'));
  return {
    file: join(path, 'issued.sqlite'),
    [Symbol.asyncDispose]: async () => await rm(path, { recursive: true, force: true }),
  };
}
