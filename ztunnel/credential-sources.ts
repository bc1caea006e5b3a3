import { readFileSync } from 'node:fs';
import { rootCertificates } from 'node:tls';
import type { PemSource, TokenSource } from './config-values.ts';

/** Roots that a control plane's server is verified against, PEM; read anew. @throws when the file cannot be read */
export function readRoots(source: PemSource): string {
  switch (source.kind) {
    case 'file':
      return readFileSync(source.path, 'utf8');
    case 'text':
      return source.pem;
    case 'system':
      return rootCertificates.join('\n');
  }
}

/**
 * A credential, read anew, without the line end of a file, which no header may have.
 * @throws when the file cannot be read
 */
export function readToken(source: TokenSource): string {
  return source.kind === 'literal' ? source.token : readFileSync(source.path, 'utf8').trim();
}
