import 'reflect-metadata';
import { createPrivateKey, randomBytes, webcrypto } from 'node:crypto';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { toPem } from './pem.ts';

/** What a certificate is for; decides its constraints and key usages. */
export type CertificateRole = 'root' | 'issuing' | 'workload' | 'server';

/** One subject alternative name. */
export interface SubjectName {
  readonly type: 'uri' | 'dns' | 'ip';
  readonly value: string;
}

/** A private key with the certificate it signs under. */
export interface Signer {
  readonly key: webcrypto.CryptoKey;
  readonly certificatePem: string;
}

/** A certificate to be made. */
export interface CertificateTemplate {
  readonly role: CertificateRole;
  /** RFC 4514 text; empty: no subject, and the alternative names become critical. */
  readonly subject: string;
  readonly names: readonly SubjectName[];
  /** DER of the subject's public key. */
  readonly publicKeySpki: Uint8Array;
  /** Milliseconds since the epoch, cut to whole seconds. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** A certificate that was made. */
export interface SignedCertificate {
  readonly pem: string;
  /** Lower-case hexadecimal, 126 random bits. */
  readonly serial: string;
}

const ECDSA_P256 = { name: 'ECDSA', namedCurve: 'P-256' };

/** A new ECDSA P-256 key pair: the private half for signing here and as PKCS#8 PEM, the public half as DER. */
export async function generateSigningKey(): Promise<{
  readonly key: webcrypto.CryptoKey;
  readonly keyPem: string;
  readonly publicKeySpki: Uint8Array;
}> {
  const pair = await webcrypto.subtle.generateKey(ECDSA_P256, true, ['sign', 'verify']);
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', pair.privateKey);
  const publicKeySpki = new Uint8Array(await webcrypto.subtle.exportKey('spki', pair.publicKey));
  return { key: pair.privateKey, keyPem: toPem('PRIVATE KEY', new Uint8Array(pkcs8)), publicKeySpki };
}

/**
 * Reads a PEM private key (ECDSA P-256 or P-384, RSA) for signing; it cannot be taken out again.
 * @throws Error when it is another kind of key.
 */
export function importSigningKey(keyPem: string): webcrypto.CryptoKey {
  const key = createPrivateKey(keyPem);
  if (key.asymmetricKeyType === 'rsa') {
    return key.toCryptoKey({ name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }, false, ['sign']);
  }
  const namedCurve = key.asymmetricKeyDetails?.namedCurve === 'secp384r1' ? 'P-384' : 'P-256';
  return key.toCryptoKey({ name: 'ECDSA', namedCurve }, false, ['sign']);
}

/** SHA-256, but with P-384 its own SHA-384: clients that know fixed pairs only take no other. */
function signatureOf(key: webcrypto.CryptoKey): { readonly name: string; readonly hash: string } {
  const { name } = key.algorithm;
  const curve = 'namedCurve' in key.algorithm ? key.algorithm.namedCurve : undefined;
  return { name, hash: curve === 'P-384' ? 'SHA-384' : 'SHA-256' };
}

/** Makes a certificate that signs itself. */
export async function signRoot(
  template: CertificateTemplate,
  key: webcrypto.CryptoKey,
): Promise<SignedCertificate> {
  return await generate(template, key, { subject: template.subject, extensions: [] });
}

/** Makes a certificate under a signer's. Nothing is checked here: who may have which is for the authority to say. */
export async function signCertificate(
  template: CertificateTemplate,
  signer: Signer,
): Promise<SignedCertificate> {
  const issuer = new X509Certificate(signer.certificatePem);
  const keyId = issuer.getExtension(SubjectKeyIdentifierExtension)?.keyId;
  const authorityKey =
    keyId === undefined
      ? await AuthorityKeyIdentifierExtension.create(issuer.publicKey)
      : new AuthorityKeyIdentifierExtension(keyId);
  return await generate(template, signer.key, { subject: issuer.subjectName, extensions: [authorityKey] });
}

async function generate(
  template: CertificateTemplate,
  signingKey: webcrypto.CryptoKey,
  issuer: {
    readonly subject: X509Certificate['subjectName'] | string;
    readonly extensions: readonly Extension[];
  },
): Promise<SignedCertificate> {
  const serial = randomSerial();
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serial,
    subject: template.subject,
    issuer: issuer.subject,
    notBefore: wholeSecond(template.notBeforeMs),
    notAfter: wholeSecond(template.notAfterMs),
    publicKey: Buffer.from(template.publicKeySpki),
    signingKey,
    signingAlgorithm: signatureOf(signingKey),
    extensions: [
      ...roleExtensions(template.role),
      await SubjectKeyIdentifierExtension.create(Buffer.from(template.publicKeySpki)),
      ...issuer.extensions,
      ...nameExtensions(template),
    ],
  });
  return { pem: toPem('CERTIFICATE', new Uint8Array(certificate.rawData)), serial };
}

function roleExtensions(role: CertificateRole): readonly Extension[] {
  if (role === 'root' || role === 'issuing') {
    const pathLength = role === 'issuing' ? 0 : undefined;
    return [
      new BasicConstraintsExtension(true, pathLength, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
    ];
  }
  const both = [ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth];
  return [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature | KeyUsageFlags.keyEncipherment, true),
    new ExtendedKeyUsageExtension(role === 'workload' ? both : [ExtendedKeyUsage.serverAuth]),
  ];
}

function nameExtensions(template: CertificateTemplate): readonly Extension[] {
  if (template.names.length === 0) return [];
  const names = template.names.map(
    ({ type, value }) => ({ type: type === 'uri' ? 'url' : type, value }) as const,
  );
  return [new SubjectAlternativeNameExtension(names, template.subject === '')];
}

/** Positive, never shorter than it looks: the first byte is between 0x40 and 0x7f. */
function randomSerial(): string {
  const bytes = randomBytes(16);
  bytes.writeUInt8(0x40 | (bytes.readUInt8(0) & 0x3f), 0);
  return bytes.toString('hex');
}

function wholeSecond(ms: number): Date {
  return new Date(Math.floor(ms / 1000) * 1000);
}
