import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { decideImport, type ImportDecision, type ImportedTexts } from './import-authority.ts';
import { shakeHands } from './in-process-handshake.ts';
import { readPkcs12 } from './pkcs12.ts';
import { issueSvid, temporaryAuthority } from './testing.ts';

/** Authorities as an operator makes them: with openssl. */
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'tulle-import-'));
  root('root', 'rsa:2048', CA);
  signed('sub', 'rsa:2048', 'root', `${CA}basicConstraints=critical,CA:TRUE,pathlen:0\n`);
  root('p256', 'P-256', CA);
  root('p384', 'P-384', CA);
});

afterAll(() => rmSync(folder, { recursive: true }));

const USAGE = 'keyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n';
const CA = `${USAGE}basicConstraints=critical,CA:TRUE\n`;

function openssl(...args: readonly string[]): void {
  execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
}

function key(name: string, kind: string): void {
  const how = kind.startsWith('rsa:')
    ? ['RSA', '-pkeyopt', `rsa_keygen_bits:${kind.slice(4)}`]
    : kind === 'ed25519'
      ? ['ED25519']
      : ['EC', '-pkeyopt', `ec_paramgen_curve:${kind}`];
  openssl('genpkey', '-algorithm', ...how, '-out', `${name}.key`);
}

function configure(name: string, extensions: string): readonly string[] {
  // The last of two lines for the same extension is what is meant.
  const lines = new Map(
    extensions
      .trim()
      .split('\n')
      .map((line) => [line.split('=')[0], line]),
  );
  const text = `[req]\ndistinguished_name=dn\n[dn]\n[v3]\n${[...lines.values()].join('\n')}\n`;
  writeFileSync(join(folder, `${name}.cnf`), text);
  return ['-config', `${name}.cnf`];
}

function root(name: string, kind: string, extensions: string, ...flags: readonly string[]): void {
  key(name, kind);
  const config = configure(name, extensions);
  const days = flags.includes('-days') ? [] : ['-days', '30'];
  openssl(
    ...['req', '-x509', '-new', '-key', `${name}.key`, '-subj', `/CN=${name}`, '-out', `${name}.pem`],
    ...[...config, '-extensions', 'v3', ...days, ...flags],
  );
}

function signed(
  name: string,
  kind: string,
  by: string,
  extensions: string,
  ...flags: readonly string[]
): void {
  key(name, kind);
  const config = configure(name, extensions);
  openssl('req', '-new', '-key', `${name}.key`, '-subj', `/CN=${name}`, '-out', `${name}.csr`, ...config);
  openssl(
    ...['x509', '-req', '-in', `${name}.csr`, '-CA', `${by}.pem`, '-CAkey', `${by}.key`, '-CAcreateserial'],
    ...['-days', '20', '-extfile', `${name}.cnf`, '-extensions', 'v3', '-out', `${name}.pem`, ...flags],
  );
}

const read = (name: string): string => readFileSync(join(folder, name), 'utf8');
const decide = (texts: Partial<ImportedTexts>, nowMs = Date.now()): ImportDecision =>
  decideImport({ certificatePem: '', keyPem: '', ...texts }, { trustDomain: 'cluster.local', nowMs });
const alone = (name: string): ImportedTexts => ({
  certificatePem: read(`${name}.pem`),
  keyPem: read(`${name}.key`),
});
const reasonOf = (decision: ImportDecision): string =>
  decision.kind === 'refused' ? decision.reason : 'accepted';

test.each([
  { what: 'RSA under a root', texts: () => ({ ...alone('sub'), rootPem: read('root.pem') }) },
  { what: 'RSA, root in the chain', texts: () => ({ ...alone('sub'), chainPem: read('root.pem') }) },
  {
    what: 'all in one file',
    texts: () => ({ ...alone('sub'), certificatePem: read('sub.pem') + read('root.pem') }),
  },
  { what: 'a root of P-256', texts: () => alone('p256') },
  { what: 'a root of P-384', texts: () => alone('p384') },
  { what: 'a root of RSA', texts: () => alone('root') },
])('$what can take over, and its certificates are accepted by OpenSSL', async ({ texts }) => {
  const decision = decide(texts());
  if (decision.kind === 'refused') throw new Error(decision.reason);
  await using ca = await temporaryAuthority();
  ca.authority.distribute(decision.files);
  ca.authority.signWithNext(Date.now());
  ca.authority.retire();
  const web = await issueSvid(ca.authority, 'spiffe://cluster.local/ns/shop/sa/web');
  const cart = await issueSvid(ca.authority, 'spiffe://cluster.local/ns/shop/sa/cart');
  expect(await shakeHands(web, cart)).toEqual({ kind: 'accepted' });
});

test.each<{
  what: string;
  make?: () => void;
  texts: () => Partial<ImportedTexts>;
  reason: RegExp;
  atMs?: number;
}>([
  { what: 'nothing', texts: () => ({}), reason: /--cert: there is no PEM certificate/ },
  {
    what: 'garbage',
    texts: () => ({ certificatePem: 'nonsense', keyPem: read('root.key') }),
    reason: /--cert: there is no PEM certificate/,
  },
  {
    what: 'a certificate that is none',
    texts: () => ({
      certificatePem: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
      keyPem: read('root.key'),
    }),
    reason: /--cert: a certificate in it cannot be read/,
  },
  { what: 'no key', texts: () => ({ certificatePem: read('root.pem') }), reason: /without its key/ },
  {
    what: 'a key that is none',
    texts: () => ({ ...alone('root'), keyPem: 'nonsense' }),
    reason: /not a PEM private key/,
  },
  {
    what: 'an encrypted key',
    make: () => openssl('pkey', '-in', 'root.key', '-aes256', '-passout', 'pass:x', '-out', 'locked.key'),
    texts: () => ({ ...alone('root'), keyPem: read('locked.key') }),
    reason: /encrypted; decrypt it first/,
  },
  {
    what: "another's key",
    texts: () => ({ ...alone('root'), keyPem: read('sub.key') }),
    reason: /not the key of the certificate "CN=root"/,
  },
  {
    what: 'a weak RSA key',
    make: () => root('weak', 'rsa:1024', CA),
    texts: () => alone('weak'),
    reason: /1024 bits; 2048 at least/,
  },
  {
    what: 'a curve that few know',
    make: () => root('p521', 'P-521', CA),
    texts: () => alone('p521'),
    reason: /secp521r1; only P-256 and P-384/,
  },
  {
    what: 'a kind of key that few know',
    make: () => root('ed', 'ed25519', CA),
    texts: () => alone('ed'),
    reason: /kind ed25519/,
  },
  {
    what: 'a signature that nobody accepts',
    make: () => signed('sha1', 'P-256', 'root', CA, '-sha1'),
    texts: () => ({ ...alone('sha1'), rootPem: read('root.pem') }),
    reason: /signed with .*sha1/i,
  },
  {
    what: 'a leaf',
    make: () => root('leaf', 'P-256', 'basicConstraints=critical,CA:FALSE\n'),
    texts: () => alone('leaf'),
    reason: /not an authority: its basicConstraints lack CA:TRUE/,
  },
  {
    what: 'one that may not sign certificates',
    make: () => root('nosign', 'P-256', 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,cRLSign\n'),
    texts: () => alone('nosign'),
    // OpenSSL itself does not take it for its own issuer.
    reason: /lacks keyCertSign|whose certificate is not there/,
  },
  {
    what: 'one below an authority that allows none',
    make: () => signed('deep', 'P-256', 'sub', CA),
    texts: () => ({ ...alone('deep'), chainPem: read('sub.pem') + read('root.pem') }),
    reason: /"CN=sub" allows 0 authorities below it \(pathlen\), and there are 1/,
  },
  {
    what: 'one for another purpose',
    make: () => root('mail', 'P-256', `${CA}extendedKeyUsage=emailProtection\n`),
    texts: () => alone('mail'),
    reason: /extendedKeyUsage lacks/,
  },
  {
    what: 'name constraints on DNS names',
    make: () => root('dns', 'P-256', `${CA}nameConstraints=critical,permitted;DNS:example.com\n`),
    texts: () => alone('dns'),
    reason: /other names than URIs/,
  },
  {
    what: 'name constraints for another trust domain',
    make: () => root('uri', 'P-256', `${CA}nameConstraints=critical,permitted;URI:example.com\n`),
    texts: () => alone('uri'),
    reason: /permits example.com only/,
  },
  {
    what: 'name constraints against this one',
    make: () => root('not', 'P-256', `${CA}nameConstraints=critical,excluded;URI:.local\n`),
    texts: () => alone('not'),
    reason: /excludes the trust domain/,
  },
  {
    what: 'an extension that nobody knows',
    make: () => root('odd', 'P-256', `${CA}1.2.3.4=critical,DER:0500\n`),
    texts: () => alone('odd'),
    reason: /critical extension that is not understood/,
  },
  {
    what: 'another trust domain',
    make: () => root('other', 'P-256', `${CA}subjectAltName=URI:spiffe://other.example\n`),
    texts: () => alone('other'),
    reason: /is of spiffe:\/\/other.example/,
  },
  {
    what: 'no issuer',
    texts: () => alone('sub'),
    reason: /signed by "CN=root", whose certificate is not there/,
  },
  {
    what: 'an issuer of another chain',
    texts: () => ({ ...alone('p256'), rootPem: read('root.pem') }),
    reason: /"CN=root" does not belong to the chain/,
  },
  { what: 'one that has expired', texts: () => alone('root'), reason: /has expired/, atMs: 40 * 86_400_000 },
  {
    what: 'one that is to come',
    texts: () => alone('root'),
    reason: /is not valid before/,
    atMs: -86_400_000,
  },
  {
    what: 'one that ends soon',
    texts: () => alone('root'),
    reason: /ends within the hour/,
    atMs: 30 * 86_400_000 - 600_000,
  },
])('$what is refused, and why', ({ make, texts, reason, atMs = 0 }) => {
  make?.();
  expect(reasonOf(decide(texts(), Date.now() + atMs))).toMatch(reason);
});

test.each([
  { what: 'RSA with a chain', name: 'sub', flags: ['-certfile', 'root.pem'], password: 'secret' },
  {
    what: 'RSA in the old way',
    name: 'root',
    flags: ['-keypbe', 'PBE-SHA1-3DES', '-certpbe', 'PBE-SHA1-3DES', '-macalg', 'sha1'],
    password: 'secret',
  },
  { what: 'ECDSA', name: 'p256', flags: [], password: 'secret' },
  { what: 'ECDSA without a password', name: 'p384', flags: [], password: '' },
])('a PKCS#12 file is taken apart: $what', ({ name, flags, password }) => {
  const out = ['-out', `${name}.p12`, '-passout', `pass:${password}`];
  openssl('pkcs12', '-export', '-in', `${name}.pem`, '-inkey', `${name}.key`, ...flags, ...out);
  const der = readFileSync(join(folder, `${name}.p12`));
  const { certificatesPem, keyPem } = readPkcs12(der, password);
  expect(reasonOf(decide({ certificatePem: certificatesPem, keyPem }))).toBe('accepted');
  expect(() => readPkcs12(der, 'wrong')).toThrow(/cannot be opened/);
});

test.each([Buffer.from('nonsense'), Buffer.alloc(0), Buffer.alloc(300_000), Buffer.alloc(100_000, 0x30)])(
  'what is no PKCS#12 is refused (case %#)',
  (bytes) => {
    expect(() => readPkcs12(bytes, '')).toThrow(expect.objectContaining({ code: 'UNREADABLE_PKCS12' }));
  },
);
