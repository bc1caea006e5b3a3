import { readFileSync } from 'node:fs';
import { rootCertificates } from 'node:tls';
import type { PemSource } from '#ztunnel/config-values.ts';
import type { WaypointSettings } from './settings.ts';

/** Roots that the control plane is verified against, PEM; read anew. @throws when the file cannot be read */
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
export function requestHeaders({ token, clusterId }: WaypointSettings): Record<string, string> {
  if (token === undefined) return { clusterid: clusterId };
  // A line end, which no header may have, is not part of it.
  const text = token.kind === 'literal' ? token.token : readFileSync(token.path, 'utf8').trim();
  return { clusterid: clusterId, authorization: `Bearer ${text}` };
}
