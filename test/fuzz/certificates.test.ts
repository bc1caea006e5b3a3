import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readAuthorityConstraints } from '#certs/authority-constraints.ts';
import { createSigningRequest, readSigningRequest, SigningRequestError } from '#certs/csr.ts';
import { DerError, readDer, readDerSequence, TAG, writeDer } from '#certs/der.ts';
import { formatIdentity, parseIdentity } from '#certs/identity.ts';
import { decideImport } from '#certs/import-authority.ts';
import { readCertificateNames, readSerial } from '#certs/leaf.ts';
import { identityOfCertificate } from '#certs/peer.ts';
import { derOfPem, splitPem, toPem } from '#certs/pem.ts';
import { Pkcs12Error, readPkcs12 } from '#certs/pkcs12.ts';
import { parseRotation } from '#certs/rotation-file.ts';
import { readResponse, SignerError } from '#certs/signer-client.ts';
import { createCertificateMethod } from '#certs/signer-protocol.ts';
import { type TemporaryAuthority, temporaryAuthority } from '#certs/testing.ts';
import { always, bytesNear, outcomeOf, textNear } from './fuzz.ts';

const WEB = parseIdentity('spiffe://cluster.local/ns/shop/sa/web');

let ca: TemporaryAuthority;
let leaf: Buffer;
let issuing: X509Certificate;
beforeAll(async () => {
  ca = await temporaryAuthority();
  const [leafPem = '', issuingPem = ''] = splitPem((await ca.svid(WEB)).certificateChainPem);
  leaf = new X509Certificate(leafPem).raw;
  issuing = new X509Certificate(issuingPem);
});
afterAll(async () => await ca[Symbol.asyncDispose]());

test('a certificate that was changed is not accepted for what it was not signed for', () => {
  always(bytesNear(leaf), (der) => {
    const check = identityOfCertificate(der);
    outcomeOf(() => readSerial(der), DerError);
    outcomeOf(() => readCertificateNames(der), DerError);
    outcomeOf(() => readAuthorityConstraints(der), DerError);
    if (check.kind === 'refused') return;
    const parsed = outcomeOf(() => new X509Certificate(der), Error); // OpenSSL's own, of no class that could be named.
    if (parsed === undefined || !parsed.verify(issuing.publicKey)) return;
    expect(formatIdentity(check.identity)).toBe(formatIdentity(WEB));
  });
});

test('DER is read as it is written, or a DerError', () => {
  always(bytesNear(leaf), (der) => {
    const elements = outcomeOf(() => readDerSequence(der), DerError);
    if (elements === undefined) return;
    const again = elements.map(({ tag, content }) => Buffer.from(writeDer(tag, content)));
    expect(Buffer.concat(again).equals(der)).toBe(true);
    outcomeOf(() => readDer(der, TAG.sequence), DerError);
  });
});

test('a signing request yields the key that signed it, or a SigningRequestError', async () => {
  const { csrPem } = await createSigningRequest(WEB);
  const der = Buffer.from(derOfPem('CERTIFICATE REQUEST', csrPem) ?? []);
  const { publicKeySpki } = readSigningRequest(csrPem);
  always(bytesNear(der), (bytes) => {
    const read = outcomeOf(
      () => readSigningRequest(toPem('CERTIFICATE REQUEST', bytes)),
      SigningRequestError,
    );
    if (read !== undefined) expect(Buffer.from(read.publicKeySpki).equals(publicKeySpki)).toBe(true);
  });
  always(textNear(csrPem), (pem) => void outcomeOf(() => readSigningRequest(pem), SigningRequestError));
});

test('what a node asks the authority for is a request, or refused', async () => {
  const { csrPem } = await createSigningRequest(WEB);
  const { requestSerialize, requestDeserialize } = createCertificateMethod.createCertificate;
  const request = { csrPem, ttlSeconds: 60n, impersonated: formatIdentity(WEB) };
  always(bytesNear(requestSerialize({ kind: 'request', request })), (bytes) => {
    expect(['request', 'refused']).toContain(requestDeserialize(bytes).kind);
  });
});

test('what an authority answers is for the key and the identity that were asked for, or a SignerError', async () => {
  const request = await createSigningRequest(WEB);
  const { publicKeySpki } = readSigningRequest(request.csrPem);
  const issued = await ca.authority.issue({ publicKeySpki, identity: WEB, ttlMs: 60_000 });
  const chain = [...issued.chainPem, issued.rootsPem];
  const answer = fc
    .nat(chain.length - 1)
    .chain((at) => textNear(chain[at] ?? '').map((pem) => chain.with(at, pem)));
  always(answer, (certificateChain) => {
    const svid = outcomeOf(() => readResponse({ certificateChain }, WEB, request), SignerError);
    if (svid !== undefined) expect(formatIdentity(svid.identity)).toBe(formatIdentity(WEB));
  });
});

test('a bundle of PEM is taken apart into certificates, whatever is in between', () => {
  always(textNear(toPem('CERTIFICATE', leaf).repeat(2)), (text) => {
    for (const pem of splitPem(text))
      expect(pem).toMatch(/^-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\n$/);
  });
});

test('an authority to be imported is accepted or refused with a reason, as PEM and as PKCS#12', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-fuzz-'));
  const openssl = (...args: readonly string[]): void =>
    void execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  try {
    openssl(
      ...'req -x509 -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out c -subj /CN=r -days 9'.split(
        ' ',
      ),
    );
    openssl(...'pkcs12 -export -inkey k -in c -out p -passout pass:x -iter 1 -macalg sha256'.split(' '));
    const [keyPem, certificatePem] = ['k', 'c'].map((file) => readFileSync(join(folder, file), 'utf8'));
    const context = { trustDomain: 'cluster.local', nowMs: Date.now() };
    const texts = fc.record({
      keyPem: textNear(keyPem ?? ''),
      certificatePem: textNear(certificatePem ?? ''),
    });
    always(texts, (changed) => {
      expect(['accepted', 'refused']).toContain(decideImport(changed, context).kind);
      expect(['accepted', 'refused']).toContain(
        decideImport({ ...changed, keyPem: keyPem ?? '' }, context).kind,
      );
    });
    always(bytesNear(readFileSync(join(folder, 'p')), deepSequence(20_000)), (bytes) => {
      const contents = outcomeOf(() => readPkcs12(bytes, 'x'), Pkcs12Error);
      if (contents !== undefined)
        decideImport({ ...contents, certificatePem: contents.certificatesPem }, context);
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a rotation that was written down is one, or is not there', () => {
  const files = { rootPem: 'r', rootKeyPem: 'k', issuingPem: 'i', issuingKeyPem: 'j' };
  const previous = { rootPem: 'r', issuingPem: 'i' };
  const samples = [
    { kind: 'none' },
    { kind: 'distributing', startedMs: 1, next: files },
    { kind: 'retiring', startedMs: 1, switchedMs: 2, untilMs: 3, signing: files, previous },
  ].map((rotation) => JSON.stringify(rotation));
  for (const sample of samples) expect(parseRotation(sample)).toEqual(JSON.parse(sample));
  always(textNear(...samples), (text) => {
    const rotation = parseRotation(text);
    if (rotation !== undefined) expect(parseRotation(JSON.stringify(rotation))).toEqual(rotation);
  });
});

/** Sequences in sequences, without their ends. */
function deepSequence(levels: number): Buffer {
  return Buffer.alloc(levels * 4, Buffer.from([0x30, 0x82, 0x7f, 0xff]));
}
