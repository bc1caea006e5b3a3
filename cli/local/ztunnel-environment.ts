import { join } from 'node:path';
import { CONTROL_PLANE_ADDRESS, CONTROL_PLANE_PORT, nodeAddress } from './addresses.ts';
import type { FabricNode } from './fabric.ts';
import { nodeRunFolder, type StateFolder, tokenFile } from './state-folder.ts';

/** Where xDS and the CA are, inside the mesh. */
export const CONTROL_PLANE_URL: string = `https://${CONTROL_PLANE_ADDRESS.v4}:${CONTROL_PLANE_PORT}`;

/** Time that a ztunnel has between SIGTERM and SIGKILL; by ambient's rule it drains for a second less. */
export const ZTUNNEL_GRACE_SECONDS: 10 = 10;

/**
 * The environment of a node's ztunnel, under the names that a stock ztunnel reads: with it one of any make can be started in
 * the node's network namespace.
 */
export function ztunnelEnvironment(
  state: StateFolder,
  node: FabricNode,
  svidTtl: string,
): Readonly<Record<string, string>> {
  const bundle = join(state.path, 'ca', 'bundle.pem');
  return {
    XDS_ADDRESS: CONTROL_PLANE_URL,
    CA_ADDRESS: CONTROL_PLANE_URL,
    XDS_ROOT_CA: bundle,
    CA_ROOT_CA: bundle,
    AUTH_TOKEN: tokenFile(state, node.name),
    NODE_NAME: node.name,
    CLUSTER_ID: 'Kubernetes',
    CLUSTER_DOMAIN: 'cluster.local',
    NETWORK: '',
    PROXY_MODE: 'shared',
    INPOD_UDS: join(nodeRunFolder(state, node.name), 'zds.sock'),
    INSTANCE_IP: nodeAddress(node.number).v4,
    POD_NAME: `ztunnel-${node.name}`,
    POD_NAMESPACE: 'istio-system',
    SERVICE_ACCOUNT: 'ztunnel',
    SECRET_TTL: svidTtl,
    IPV6_ENABLED: 'true',
    TERMINATION_GRACE_PERIOD_SECONDS: `${ZTUNNEL_GRACE_SECONDS}`,
  };
}

/** As a file of KEY=value lines. */
export function environmentFile(environment: Readonly<Record<string, string>>): string {
  return Object.entries(environment)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('');
}
