import { readFileSync } from 'node:fs';
import { rootCertificates } from 'node:tls';
import type { ControlPlaneConfig, ZtunnelConfig } from './config.ts';
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

/** Metadata of a request to the control plane; the token is read anew. @throws when its file cannot be read */
export function requestHeaders(config: ZtunnelConfig, service: ControlPlaneConfig): Record<string, string> {
  return {
    ...(config.token !== undefined && { authorization: `Bearer ${readToken(config.token)}` }),
    clusterid: config.clusterId,
    ...Object.fromEntries(service.headers),
  };
}

/** A line end, which no header may have, is not part of it. */
function readToken(source: TokenSource): string {
  return source.kind === 'literal' ? source.token : readFileSync(source.path, 'utf8').trim();
}
