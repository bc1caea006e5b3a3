import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import type { Credentials } from './peers.ts';

/** A P-256 CA and one certificate for both ends, as the peers' proxies want them: files, made by openssl. */
export async function makeCredentials(directory: string): Promise<Credentials> {
  const at = (name: string): string => join(directory, name);
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { stdio: 'ignore' });
  };
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...newKey,
    '-subj',
    '/CN=bench ca',
    '-days',
    '2',
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
  );
  openssl(
    'req',
    ...newKey,
    '-subj',
    '/CN=bench',
    '-addext',
    'subjectAltName=DNS:bench',
    '-keyout',
    at('bench.key'),
    '-out',
    at('bench.csr'),
  );
  const sign = [
    '-CA',
    at('ca.pem'),
    '-CAkey',
    at('ca.key'),
    '-CAcreateserial',
    '-days',
    '2',
    '-copy_extensions',
    'copy',
  ];
  openssl('x509', '-req', '-in', at('bench.csr'), ...sign, '-out', at('bench.pem'));
  return { ca: at('ca.pem'), certificate: at('bench.pem'), key: at('bench.key') };
}
