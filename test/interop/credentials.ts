import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateSigningKey, importSigningKey, signCertificate } from '#certs/x509.ts';
import type { Credentials } from './stage/doors.ts';

const HOUR_MS = 3_600_000;

/** A certificate under the control plane's CA for a caller of each namespace: its service account is `caller`. */
export async function callerCredentials(
  caDirectory: string,
  namespaces: readonly string[],
): Promise<Credentials> {
  const read = (name: string): string => readFileSync(join(caDirectory, name), 'utf8');
  const issuer = { key: importSigningKey(read('issuing.key')), certificatePem: read('issuing.pem') };
  const callers = namespaces.map(async (namespace) => {
    const { keyPem, publicKeySpki } = await generateSigningKey();
    const { pem } = await signCertificate(
      {
        role: 'workload',
        subject: '',
        names: [{ type: 'uri', value: `spiffe://cluster.local/ns/${namespace}/sa/caller` }],
        publicKeySpki,
        notBeforeMs: Date.now() - 120_000,
        notAfterMs: Date.now() + HOUR_MS,
      },
      issuer,
    );
    return [namespace, { key: keyPem, certificate: pem + issuer.certificatePem }] as const;
  });
  return { roots: read('root.pem'), callers: Object.fromEntries(await Promise.all(callers)) };
}
