import { createPublicKey } from 'node:crypto';
import { expect, test } from 'vitest';
import { encodeAdsRequest } from './ads.ts';
import { encodeCertificateRequest } from './ca.ts';
import { ADS_REQUESTS, CSR, ZDS } from './recording.ts';
import { makeSigningRequest, requestInfo } from './signing-request.ts';
import { Message } from './wire.ts';

const IDENTITY = 'spiffe://cluster.local/ns/default/sa/c';

/** The signed part and the key of a request, found by the lengths of DER: all of them are one byte or two here. */
function readCsr(pem: string): { readonly info: Buffer; readonly spki: Buffer } {
  const der = Buffer.from(pem.replace(/-----[^-]+-----|\n/g, ''), 'base64');
  const element = (at: number): Buffer => {
    const long = (der[at + 1] ?? 0) & 0x80 ? (der[at + 1] ?? 0) & 0x7f : 0;
    const length = long === 0 ? (der[at + 1] ?? 0) : der.readUIntBE(at + 2, long);
    return der.subarray(at, at + 2 + long + length);
  };
  const outer = element(0);
  const info = element(outer.length > 0x82 + 2 ? (outer[1] === 0x81 ? 3 : 4) : 2);
  const version = info[1] === 0x81 ? 3 : 2;
  const start = der.indexOf(info) + version;
  return { info, spki: element(start + 3 + 2) };
}

test('the signing request is the recorded one, byte by byte, but for key and signature', () => {
  const { info, spki } = readCsr(CSR.request.csr);
  expect(createPublicKey({ key: spki, type: 'spki', format: 'der' }).asymmetricKeyDetails?.namedCurve).toBe(
    'prime256v1',
  );
  expect(requestInfo(IDENTITY, spki).toString('hex')).toBe(info.toString('hex'));
  const ours = readCsr(makeSigningRequest(IDENTITY).csrPem);
  expect(requestInfo(IDENTITY, ours.spki).toString('hex')).toBe(ours.info.toString('hex'));
});

test('the request for a certificate has the recorded fields', () => {
  const message = new Message(
    encodeCertificateRequest(CSR.request.csr, CSR.request.validityDuration, IDENTITY),
  );
  expect(message.numbers).toEqual([1, 3, 4]);
  expect(message.text(1)).toBe(CSR.request.csr);
  expect(message.integer(3)).toBe(CSR.request.validityDuration);
  const [entry] = message.message(4)?.messages(1) ?? [];
  expect(entry?.text(1)).toBe('ImpersonatedIdentity');
  expect(entry?.message(2)?.text(3)).toBe(CSR.request.metadata.fields['ImpersonatedIdentity']?.stringValue);
});

test('the first requests of both types carry the node, an ACK carries type and nonce only', () => {
  const numbers = ADS_REQUESTS.map((request) => new Message(encodeAdsRequest(request)).numbers);
  expect(numbers).toEqual([
    [1, 2],
    [1, 2],
    [2, 6],
    [2, 6],
  ]);
});

test('every recorded message of ZDS can be read', () => {
  for (const { hex } of ZDS) expect(new Message(Buffer.from(hex, 'hex')).numbers).toHaveLength(1);
});
