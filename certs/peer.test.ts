import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseIdentity } from './identity.ts';
import { checkClient, checkServer, identityOfCertificate } from './peer.ts';
import { type TemporaryAuthority, temporaryAuthority } from './testing.ts';
import { type CertificateRole, type SubjectName, signCertificate } from './x509.ts';

const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const CART = 'spiffe://cluster.local/ns/shop/sa/cart';
const uri = (value: string): SubjectName => ({ type: 'uri', value });

let ca: TemporaryAuthority;
beforeAll(async () => {
  ca = await temporaryAuthority();
});
afterAll(async () => await ca[Symbol.asyncDispose]());

/** A certificate as only a broken or hostile authority would sign it. */
async function certificate(
  names: readonly SubjectName[],
  role: CertificateRole = 'workload',
): Promise<Uint8Array> {
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const publicKeySpki = publicKey.export({ type: 'spki', format: 'der' });
  const life = { notBeforeMs: Date.now() - 1000, notAfterMs: Date.now() + 60_000 };
  const { pem } = await signCertificate(
    { role, subject: '', names, publicKeySpki, ...life },
    await ca.signer(),
  );
  return new X509Certificate(pem).raw;
}

test('a leaf with one SPIFFE ID is that identity', async () => {
  const identity = parseIdentity(WEB);
  expect(identityOfCertificate(await certificate([uri(WEB)]))).toEqual({ kind: 'accepted', identity });
});

test('names of other kinds beside the SPIFFE ID do not matter', async () => {
  const der = await certificate([
    { type: 'dns', value: 'web.shop' },
    uri(WEB),
    { type: 'ip', value: '10.0.0.1' },
  ]);
  expect(identityOfCertificate(der)).toMatchObject({ kind: 'accepted' });
});

test.each([
  { when: 'it has two SPIFFE IDs', names: [uri(WEB), uri(CART)], reason: 'several-uri-names' },
  { when: 'it has the same one twice', names: [uri(WEB), uri(WEB)], reason: 'several-uri-names' },
  { when: 'another URI comes first', names: [uri('https://a.b'), uri(WEB)], reason: 'several-uri-names' },
  { when: 'a NUL ends its name', names: [uri(`${WEB}\0.evil`)], reason: 'not-a-spiffe-id' },
  { when: 'a NUL follows its name', names: [uri(`${WEB}\0`)], reason: 'not-a-spiffe-id' },
  { when: 'its name has a line feed', names: [uri(`${WEB}\n`)], reason: 'not-a-spiffe-id' },
  {
    when: 'its URI is no SPIFFE ID',
    names: [uri('https://cluster.local/ns/shop/sa/web')],
    reason: 'not-a-spiffe-id',
  },
  {
    when: 'its name is percent-encoded',
    names: [uri('spiffe://cluster.local/ns/shop/sa/%77eb')],
    reason: 'not-a-spiffe-id',
  },
  { when: 'its name is the trust domain', names: [uri('spiffe://cluster.local')], reason: 'not-a-spiffe-id' },
  {
    when: 'a DNS name looks like a URI',
    names: [{ type: 'dns', value: `a, URI:${WEB}` }],
    reason: 'no-uri-name',
  },
  { when: 'a DNS name is a SPIFFE ID', names: [{ type: 'dns', value: WEB }], reason: 'no-uri-name' },
  { when: 'it has only an address', names: [{ type: 'ip', value: '10.0.0.1' }], reason: 'no-uri-name' },
  { when: 'it has no name at all', names: [], reason: 'no-uri-name' },
] satisfies { when: string; names: SubjectName[]; reason: string }[])(
  'a certificate is refused when $when',
  async ({ names, reason }) => {
    expect(identityOfCertificate(await certificate(names))).toMatchObject({ kind: 'refused', reason });
  },
);

test.each(['root', 'issuing'] as const)(
  'a certificate that may sign others (%s) names no workload',
  async (role) => {
    expect(identityOfCertificate(await certificate([uri(WEB)], role))).toMatchObject({
      reason: 'signing-certificate',
    });
  },
);

test('keyCertSign alone makes it one that signs, whatever its basic constraints say', async () => {
  const der = Buffer.from(await certificate([uri(WEB)]));
  // keyUsage digitalSignature + keyEncipherment becomes digitalSignature + keyCertSign.
  der[der.indexOf(Buffer.from('0603551d0f0101ff0404030205a0', 'hex')) + 13] = 0x84;
  expect(identityOfCertificate(der)).toMatchObject({ reason: 'signing-certificate' });
});

test('an extension that comes twice is refused', async () => {
  const der = Buffer.from(await certificate([uri(WEB)]));
  // The extended key usage's object identifier becomes that of the key usage before it.
  der[der.indexOf(Buffer.from('0603551d25', 'hex')) + 4] = 0x0f;
  expect(identityOfCertificate(der)).toMatchObject({ detail: 'the same extension twice' });
});

test('no damaged certificate is ever more than refused', async () => {
  const der = await certificate([uri(WEB)]);
  const damage = fc.array(fc.tuple(fc.nat(der.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(damage, fc.nat(der.length), (changes, length) => {
      const bytes = Buffer.from(der);
      for (const [at, value] of changes) bytes[at] = value;
      expect(['accepted', 'refused']).toContain(identityOfCertificate(bytes.subarray(0, length)).kind);
    }),
    { numRuns: 2000 },
  );
});

test('a server must be one of those expected', async () => {
  const der = await certificate([uri(WEB)]);
  expect(checkServer(der, [parseIdentity(CART), parseIdentity(WEB)])).toMatchObject({ kind: 'accepted' });
  expect(checkServer(der, [parseIdentity(CART)])).toMatchObject({ reason: 'unexpected-identity' });
  expect(checkServer(der, [])).toMatchObject({ reason: 'unexpected-identity' });
});

test('a refusal says who came and who was expected', async () => {
  const check = checkServer(await certificate([uri(WEB)]), [parseIdentity(CART)]);
  expect(check).toMatchObject({ detail: `it is ${WEB}, expected ${CART}` });
});

test("a client must be of the server's trust domain, exactly", async () => {
  const der = await certificate([uri(WEB)]);
  expect(checkClient(der, 'cluster.local')).toMatchObject({ kind: 'accepted' });
  expect(checkClient(der, 'cluster.loca')).toMatchObject({ reason: 'foreign-trust-domain' });
  expect(checkClient(der, 'local')).toMatchObject({ reason: 'foreign-trust-domain' });
});

test('what byte workers load has no X.509 library and no gRPC in it', () => {
  const closure = new Set<string>();
  const packages = new Set<string>();
  const visit = (file: string): void => {
    if (closure.has(file)) return;
    closure.add(file);
    const source = readFileSync(join(import.meta.dirname, file), 'utf8');
    for (const [, specifier = ''] of source.matchAll(/^(?:import|export)\b[^;]*?from '([^']+)'/gm)) {
      if (specifier.startsWith('./')) visit(specifier.slice(2));
      else packages.add(specifier);
    }
  };
  for (const file of ['peer.ts', 'svid.ts', 'identity.ts', 'csr.ts', 'svid-manager.ts']) visit(file);
  expect([...packages].filter((name) => !name.startsWith('node:'))).toEqual([]);
});
