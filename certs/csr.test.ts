import { createPrivateKey, generateKeyPairSync, sign } from 'node:crypto';
import { expect, test } from 'vitest';
import { createSigningRequest, readSigningRequest, SigningRequestError } from './csr.ts';
import { readDer, readDerSequence, TAG, writeDer } from './der.ts';
import { parseIdentity } from './identity.ts';
import { derOfPem, toPem } from './pem.ts';

const LABEL = 'CERTIFICATE REQUEST';

/** As a stock ztunnel sent it, for spiffe://cluster.local/ns/default/sa/c. */
const RECORDED = `-----BEGIN CERTIFICATE REQUEST-----
MIIBAzCBqQIBADAAMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEV52vUTKn9GMd
yOgYC5jUYYs4yPKTaoF2oBBAPa9vZUarYvPV+AAFes8vOhLx+01Ws+GwC+eNSvhd
CPJjAbl7baBHMEUGCSqGSIb3DQEJDjE4MDYwNAYDVR0RAQH/BCowKIYmc3BpZmZl
Oi8vY2x1c3Rlci5sb2NhbC9ucy9kZWZhdWx0L3NhL2MwCgYIKoZIzj0EAwIDSQAw
RgIhAOqXwtOeTp1FrjqystosyQU58oFnwartXco2NUGo6yJqAiEAxT1xRbr2BmTS
AOIG0ORZekm06fqUPjq7ay9sIhD9rdc=
-----END CERTIFICATE REQUEST-----
`;

test('a request is byte for byte what a stock ztunnel sends, but for the key and the signature', async () => {
  const { csrPem } = await createSigningRequest(parseIdentity('spiffe://cluster.local/ns/default/sa/c'));
  expect(withoutKey(csrPem)).toEqual(withoutKey(RECORDED));
});

test("a stock ztunnel's request is understood", () => {
  const { publicKeySpki } = readSigningRequest(RECORDED);
  expect(Buffer.from(publicKeySpki).toString('base64')).toContain('V52vUTKn9GMdyOgYC5jUYYs4yPKTaoF2oBBAPa9v');
});

test('each request has a key of its own, and gives it back', async () => {
  const identity = parseIdentity('spiffe://cluster.local/ns/a/sa/b');
  const [first, second] = await Promise.all([createSigningRequest(identity), createSigningRequest(identity)]);
  expect(first.privateKeyPem).not.toBe(second.privateKeyPem);
  expect(createPrivateKey(first.privateKeyPem).asymmetricKeyDetails?.namedCurve).toBe('prime256v1');
});

test.each([
  { when: 'it is empty', pem: '' },
  { when: 'it is not PEM', pem: 'hello' },
  { when: 'its base64 is broken', pem: RECORDED.replace('MIIB', '%%%%') },
  { when: 'it is cut short', pem: toPem(LABEL, requestBytes(RECORDED).subarray(0, 100)) },
  { when: 'it is a certificate', pem: RECORDED.replaceAll(LABEL, 'CERTIFICATE') },
  { when: 'two are sent', pem: RECORDED + RECORDED },
  { when: 'it is enormous', pem: `${RECORDED}${' '.repeat(20_000)}` },
  { when: 'its signature is of something else', pem: tampered(RECORDED) },
  { when: 'its key is RSA', pem: signedBy('rsa') },
  { when: 'its key is on another curve', pem: signedBy('P-384') },
])('a request is refused when $when', ({ pem }) => {
  expect(() => readSigningRequest(pem)).toThrow(SigningRequestError);
});

function requestBytes(pem: string): Uint8Array {
  return derOfPem(LABEL, pem) ?? new Uint8Array();
}

/** The parts before and after the key, and the algorithm: all that two requests for one name share. */
function withoutKey(pem: string): readonly string[] {
  const [info, algorithm] = readDerSequence(readDer(requestBytes(pem), TAG.sequence).content);
  const fields = readDerSequence(info?.content ?? new Uint8Array());
  const key = readDerSequence(fields[2]?.content ?? new Uint8Array())[0];
  return [fields[0], fields[1], key, fields[3], algorithm].map((part) =>
    Buffer.from(part?.encoded ?? []).toString('hex'),
  );
}

function tampered(pem: string): string {
  const bytes = Buffer.from(requestBytes(pem));
  bytes[bytes.indexOf('default')] = 'D'.charCodeAt(0);
  return toPem(LABEL, bytes);
}

function signedBy(kind: 'rsa' | 'P-384'): string {
  const { publicKey, privateKey } =
    kind === 'rsa'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: 'P-384' });
  const info = writeDer(
    TAG.sequence,
    writeDer(TAG.integer, Uint8Array.of(0)),
    writeDer(TAG.sequence),
    publicKey.export({ type: 'spki', format: 'der' }),
  );
  const [, algorithm] = readDerSequence(readDer(requestBytes(RECORDED), TAG.sequence).content);
  const signature = writeDer(TAG.bitString, Uint8Array.of(0), sign('sha256', info, privateKey));
  return toPem(LABEL, writeDer(TAG.sequence, info, algorithm?.encoded ?? new Uint8Array(), signature));
}
