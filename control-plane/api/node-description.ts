import type { MessageInitShape } from '@bufbuild/protobuf';
import type { NodeSchema } from './gen/envoy/config/core/v3/base_pb.ts';

/** First part of the id of a client that serves a node beside its ztunnel, and whose answers are not the ztunnel's. */
export const NODE_AGENT = 'node-agent';

/** Who a client of the control plane says it is. */
export interface NodeDescription {
  /** Default: `ztunnel`. */
  readonly type?: 'ztunnel' | 'waypoint' | typeof NODE_AGENT;
  /** Address of the proxy itself; `1.1.1.1` where it is not known, as a stock ztunnel has it. */
  readonly ip: string;
  readonly podName: string;
  readonly podNamespace: string;
  readonly nodeName: string;
  /** Further metadata, text only: `ISTIO_META_…` without the prefix. */
  readonly metadata?: ReadonlyMap<string, string>;
}

/** The node as a request carries it. */
export function encodeNode(node: NodeDescription): MessageInitShape<typeof NodeSchema> {
  const { type = 'ztunnel', ip, podName, podNamespace, nodeName, metadata } = node;
  return {
    id: `${type}~${ip}~${podName}.${podNamespace}~${podNamespace}.svc.cluster.local`,
    metadata: {
      NAME: podName,
      NAMESPACE: podNamespace,
      INSTANCE_IPS: ip,
      NODE_NAME: nodeName,
      ...Object.fromEntries(metadata ?? []),
    },
  };
}
