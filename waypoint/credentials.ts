import { readToken } from '#ztunnel/credential-sources.ts';
import type { WaypointSettings } from './settings.ts';

/** Metadata of a request to the control plane; the token is read anew. @throws when its file cannot be read */
export function requestHeaders({ token, clusterId }: WaypointSettings): Record<string, string> {
  return {
    ...(token !== undefined && { authorization: `Bearer ${readToken(token)}` }),
    clusterid: clusterId,
  };
}
