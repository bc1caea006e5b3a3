import { X509Certificate } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openAuthority } from './authority.ts';
import { readCertificateNames } from './leaf.ts';
import { splitPem } from './pem.ts';
import { temporaryAuthority } from './testing.ts';
import { generateSigningKey } from './x509.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const TEN_YEARS = 3650 * DAY;

test('a new authority is a root for ten years and an intermediate under it that cannot have another', async () => {
  await using ca = await temporaryAuthority();
  const root = new X509Certificate(await readFile(join(ca.directory, 'root.pem')));
  const issuing = new X509Certificate(await readFile(join(ca.directory, 'issuing.pem')));
  expect(Math.round((root.validToDate.getTime() - Date.now()) / DAY)).toBe(3650);
  expect(issuing.ca && issuing.checkIssued(root) && issuing.verify(root.publicKey)).toBe(true);
  // basicConstraints, critical: cA true, pathLen 0; keyUsage, critical: keyCertSign and cRLSign.
  expect(issuing.raw.includes(Buffer.from('0603551d130101ff040830060101ff020100', 'hex'))).toBe(true);
  expect(issuing.raw.includes(Buffer.from('0603551d0f0101ff040403020106', 'hex'))).toBe(true);
});

test('keys are for their owner only', async () => {
  await using ca = await temporaryAuthority();
  const modes = await Promise.all(
    ['.', 'root.key', 'issuing.key'].map(async (name) => (await stat(join(ca.directory, name))).mode & 0o777),
  );
  expect(modes).toEqual([0o700, 0o600, 0o600]);
});

test('a key that others could read is taken from them when the authority opens', async () => {
  await using ca = await temporaryAuthority();
  await chmod(join(ca.directory, 'issuing.key'), 0o644);
  await reopen(ca.directory);
  expect((await stat(join(ca.directory, 'issuing.key'))).mode & 0o777).toBe(0o600);
});

test('an authority that is opened again is the same', async () => {
  await using ca = await temporaryAuthority();
  const before = await contents(ca.directory);
  const again = await reopen(ca.directory);
  expect(await contents(ca.directory)).toEqual(before);
  expect(again.bundlePem()).toBe(ca.authority.bundlePem());
});

test('an empty folder becomes an authority, one with other things in it stays as it is', async () => {
  await using ca = await temporaryAuthority();
  const empty = join(ca.directory, '..', 'empty');
  await mkdir(empty);
  await reopen(empty);
  const other = join(ca.directory, '..', 'other');
  await mkdir(other);
  await writeFile(join(other, 'notes.txt'), 'mine');
  await expect(reopen(other)).rejects.toMatchObject({ code: 'FOLDER_IN_USE' });
  expect(await readdir(other)).toEqual(['notes.txt']);
});

test('a leaf has one URI, no subject, both usages, and signs nothing', async () => {
  await using ca = await temporaryAuthority();
  const leaf = new X509Certificate((await ca.svid(WEB)).certificateChainPem);
  expect(readCertificateNames(leaf.raw)).toEqual({
    uris: [WEB],
    signsOthers: false,
    mayNotShakeHands: false,
  });
  expect(leaf.subject).toBeUndefined();
  expect(leaf.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
  // subjectAltName, critical; keyUsage, critical: digitalSignature and keyEncipherment.
  expect(leaf.raw.includes(Buffer.from('0603551d110101ff', 'hex'))).toBe(true);
  expect(leaf.raw.includes(Buffer.from('0603551d0f0101ff0404030205a0', 'hex'))).toBe(true);
});

test('the chain leads from the leaf to the bundle', async () => {
  await using ca = await temporaryAuthority();
  const svid = await ca.svid(WEB);
  const [leaf, issuing] = splitPem(svid.certificateChainPem).map((pem) => new X509Certificate(pem));
  const root = new X509Certificate(svid.rootsPem);
  expect(issuing && leaf?.verify(issuing.publicKey) && issuing.verify(root.publicKey)).toBe(true);
  expect(leaf?.serialNumber.toLowerCase()).toBe(svid.serial);
});

test.each([
  { ttlMs: DAY, before: 2 * MINUTE, after: DAY },
  { ttlMs: 10_000, before: 1000, after: 10_000 },
  { ttlMs: 20 * 365 * DAY, before: 2 * MINUTE, after: TEN_YEARS },
])('a life of $ttlMs ms begins $before ms ago and ends in $after ms', async ({ ttlMs, before, after }) => {
  const nowMs = Math.floor(Date.now() / 1000) * 1000;
  await using ca = await temporaryAuthority({ now: () => nowMs });
  const svid = await ca.svid(WEB, ttlMs);
  const leaf = new X509Certificate(svid.certificateChainPem);
  expect([leaf.validFromDate.getTime(), leaf.validToDate.getTime()]).toEqual([nowMs - before, nowMs + after]);
  expect([svid.notBeforeMs, svid.notAfterMs]).toEqual([nowMs - before, nowMs + after]);
});

test('an identity of another trust domain is not certified', async () => {
  await using ca = await temporaryAuthority();
  await expect(ca.svid('spiffe://other.example/ns/shop/sa/web')).rejects.toMatchObject({
    code: 'BAD_REQUEST',
  });
});

test('an authority that has expired signs nothing more, and does not open', async () => {
  let nowMs = Date.now();
  await using ca = await temporaryAuthority({ now: () => nowMs });
  nowMs += TEN_YEARS + MINUTE;
  await expect(ca.svid(WEB)).rejects.toMatchObject({ code: 'EXPIRED' });
  const opening = openAuthority({ directory: ca.directory, trustDomain: 'cluster.local', now: () => nowMs });
  await expect(opening).rejects.toMatchObject({
    code: 'EXPIRED',
    message: expect.stringContaining('root.pem'),
  });
});

test("a server's certificate has its names and addresses, and no identity", async () => {
  await using ca = await temporaryAuthority();
  const { chainPem } = await ca.authority.issueServer({
    dnsNames: ['istiod.istio-system.svc'],
    ips: ['10.240.0.2', 'fd00:10:240::2'],
    ttlMs: DAY,
  });
  const leaf = new X509Certificate(chainPem[0] ?? '');
  expect(leaf.checkHost('istiod.istio-system.svc')).toBe('istiod.istio-system.svc');
  expect([leaf.checkIP('10.240.0.2'), leaf.checkIP('fd00:10:240::2'), leaf.checkIP('10.240.0.3')]).toEqual([
    '10.240.0.2',
    'fd00:10:240::2',
    undefined,
  ]);
  expect(leaf.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1']);
  expect(readCertificateNames(leaf.raw).uris).toEqual([]);
});

test('a server without a name gets no certificate', async () => {
  await using ca = await temporaryAuthority();
  const nameless = ca.authority.issueServer({ dnsNames: [], ips: [], ttlMs: DAY });
  await expect(nameless).rejects.toMatchObject({ code: 'BAD_REQUEST' });
});

test.each(['root.pem', 'root.key', 'issuing.pem', 'issuing.key', 'bundle.pem'])(
  'without %s the authority does not open, and the message names it',
  async (name) => {
    await using ca = await temporaryAuthority();
    await rm(join(ca.directory, name));
    await expect(reopen(ca.directory)).rejects.toMatchObject({
      code: 'FILE_MISSING',
      message: expect.stringContaining(join(ca.directory, name)),
    });
  },
);

test.each(['root.pem', 'root.key', 'issuing.pem', 'issuing.key'])(
  'with rubbish in %s the authority does not open, and the message names it',
  async (name) => {
    await using ca = await temporaryAuthority();
    await writeFile(join(ca.directory, name), 'rubbish');
    await expect(reopen(ca.directory)).rejects.toMatchObject({
      code: 'UNREADABLE',
      message: expect.stringContaining(name),
    });
  },
);

test("a key that is not the certificate's is refused", async () => {
  await using ca = await temporaryAuthority();
  await writeFile(join(ca.directory, 'issuing.key'), (await generateSigningKey()).keyPem);
  await expect(reopen(ca.directory)).rejects.toMatchObject({ code: 'KEY_MISMATCH' });
});

test.each(['root', 'issuing'])("another authority's %s does not fit in", async (which) => {
  await using ca = await temporaryAuthority();
  await using other = await temporaryAuthority();
  for (const name of [`${which}.pem`, `${which}.key`]) {
    await writeFile(join(ca.directory, name), await readFile(join(other.directory, name)));
  }
  await expect(reopen(ca.directory)).rejects.toMatchObject({ code: 'CHAIN_MISMATCH' });
});

test('a bundle without the own root is refused', async () => {
  await using ca = await temporaryAuthority();
  await writeFile(join(ca.directory, 'bundle.pem'), '');
  await expect(reopen(ca.directory)).rejects.toMatchObject({ code: 'CHAIN_MISMATCH' });
});

test('the authority of another trust domain is refused', async () => {
  await using ca = await temporaryAuthority({ trustDomain: 'other.example' });
  await expect(reopen(ca.directory)).rejects.toMatchObject({
    code: 'WRONG_TRUST_DOMAIN',
    message: expect.stringContaining('other.example'),
  });
});

test.each(['', 'Cluster.Local', 'a/b', 'cluster.local:443'])(
  '%j is not a trust domain',
  async (trustDomain) => {
    await expect(openAuthority({ directory: '/nonexistent/ca', trustDomain })).rejects.toMatchObject({
      code: 'WRONG_TRUST_DOMAIN',
    });
  },
);

async function reopen(directory: string): ReturnType<typeof openAuthority> {
  return await openAuthority({ directory, trustDomain: 'cluster.local' });
}

async function contents(directory: string): Promise<ReadonlyMap<string, string>> {
  const names = (await readdir(directory)).sort();
  return new Map(
    await Promise.all(
      names.map(async (name) => [name, await readFile(join(directory, name), 'utf8')] as const),
    ),
  );
}
