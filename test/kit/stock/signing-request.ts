import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';

/** A private key and a request for a certificate of it, PEM. */
export interface SigningRequest {
  readonly keyPem: string;
  readonly csrPem: string;
}

/** A signing request as a stock ztunnel makes it: a new P-256 key, an empty subject, one critical SAN with the URI. */
export function makeSigningRequest(identity: string): SigningRequest {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    csrPem: signRequest(requestInfo(identity, publicKey.export({ type: 'spki', format: 'der' })), privateKey),
  };
}

/** The part of a request that is signed, DER: CertificationRequestInfo of RFC 2986. */
export function requestInfo(identity: string, publicKeySpki: Uint8Array): Buffer {
  const names = der(0x30, der(0x86, Buffer.from(identity)));
  const san = der(0x30, oid('551d11'), der(0x01, Buffer.from([0xff])), der(0x04, names));
  const attribute = der(0x30, oid('2a864886f70d01090e'), der(0x31, der(0x30, san)));
  return der(0x30, der(0x02, Buffer.from([0])), der(0x30), Buffer.from(publicKeySpki), der(0xa0, attribute));
}

function signRequest(info: Buffer, key: KeyObject): string {
  const algorithm = der(0x30, oid('2a8648ce3d040302'));
  const signature = Buffer.concat([Buffer.from([0]), sign('sha256', info, key)]);
  const base64 = der(0x30, info, algorithm, der(0x03, signature)).toString('base64');
  const lines = base64.match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE REQUEST-----\n${lines.join('\n')}\n-----END CERTIFICATE REQUEST-----\n`;
}

function oid(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, 'hex'));
}

function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts);
  const length =
    body.length < 0x80
      ? [body.length]
      : body.length < 0x100
        ? [0x81, body.length]
        : [0x82, body.length >> 8, body.length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
}
