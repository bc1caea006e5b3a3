import type { ControlPlaneConfig, ZtunnelConfig } from './config.ts';
import { readToken } from './credential-sources.ts';

/** Metadata of a request to the control plane; the token is read anew. @throws when its file cannot be read */
export function requestHeaders(config: ZtunnelConfig, service: ControlPlaneConfig): Record<string, string> {
  return {
    ...(config.token !== undefined && { authorization: `Bearer ${readToken(config.token)}` }),
    clusterid: config.clusterId,
    ...Object.fromEntries(service.headers),
  };
}
