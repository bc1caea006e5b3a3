import { randomBytes } from 'node:crypto';
import type { SigningFiles } from './rotation.ts';
import { type CertificateTemplate, generateSigningKey, signCertificate, signRoot } from './x509.ts';

/** How far clocks of the mesh's machines may be behind. */
export const CLOCK_SKEW_MS = 120_000;
const AUTHORITY_LIFE_MS = 10 * 365 * 24 * 3_600_000;

/** Makes a root for ten years, and an issuing intermediate under it; their names differ from those of any other. */
export async function makeSigningFiles(trustDomain: string, nowMs: number): Promise<SigningFiles> {
  const rootKey = await generateSigningKey();
  const issuingKey = await generateSigningKey();
  const suffix = randomBytes(4).toString('hex');
  const common = {
    names: [{ type: 'uri', value: `spiffe://${trustDomain}` }],
    notBeforeMs: nowMs - CLOCK_SKEW_MS,
    notAfterMs: nowMs + AUTHORITY_LIFE_MS,
  } as const;
  const root: CertificateTemplate = {
    ...common,
    role: 'root',
    subject: `O=Tulle, CN=${trustDomain} root ${suffix}`,
    publicKeySpki: rootKey.publicKeySpki,
  };
  const issuing: CertificateTemplate = {
    ...common,
    role: 'issuing',
    subject: `O=Tulle, CN=${trustDomain} issuing ${suffix}`,
    publicKeySpki: issuingKey.publicKeySpki,
  };
  const { pem: rootPem } = await signRoot(root, rootKey.key);
  const signed = await signCertificate(issuing, { key: rootKey.key, certificatePem: rootPem });
  return {
    rootPem,
    rootKeyPem: rootKey.keyPem,
    issuingPem: signed.pem,
    issuingKeyPem: issuingKey.keyPem,
  };
}
